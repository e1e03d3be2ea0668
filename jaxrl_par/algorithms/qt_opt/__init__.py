"""QT-Opt: Q-learning of bounded real numbers, without a network that acts.

The best action in a state is searched for, by the cross-entropy method, in targets and
by whoever acts. Values are probabilities of success, from a sigmoid:

    pi(o)  = argmax_u Q(o, u)
    y      = clip(r + d V(o'), 0, 1)
    loss   = -y log Q(o, u) - (1 - y) log(1 - Q(o, u))

    V(o')  = Q_1(o', pi_1(o'))                           single, the paper's (a)
             Q_2(o', pi_1(o'))                           double, (b)
             min(Q_1(o', pi_1(o')), Q_2(o', pi_1(o')))   clipped, (c)

Q_1 is a slow copy of what is learned, Q_2 what that was some time ago, and pi_1 the
policy of Q_1. So (c) is never above (b), and all are the same where both copies are.
There is one network; what an embedding of the state costs is paid once a state, and not
for each candidate.

Whoever labels need not be who trains: `labelled` is what the paper's Bellman updaters
do, and the agent regresses on what they leave. See `loops.labelling`.

Source: Kalashnikov et al., arXiv:1806.10293, section 4 and appendices C to F.
"""

from jaxrl_par.algorithms.qt_opt.agent import QTOptState, best, nets_of, qt_opt
from jaxrl_par.algorithms.qt_opt.cem import CEMConfig, Found, cross_entropy
from jaxrl_par.algorithms.qt_opt.config import QTOptConfig
from jaxrl_par.algorithms.qt_opt.labels import Copies, Labelled, Nets, labelled

__all__ = [
    "CEMConfig",
    "Copies",
    "Found",
    "Labelled",
    "Nets",
    "QTOptConfig",
    "QTOptState",
    "best",
    "cross_entropy",
    "labelled",
    "nets_of",
    "qt_opt",
]
