"""DQN: values of actions, learned from replay. Double, dueling, n-step, with memory.

A batch is of windows [burn-in | trained | lookahead], as `replay.Windows` cuts them:

    one row, n - 1 ahead          DQN and its n-step form; prioritised, Ape-X
    sequences, a stored carry     R2D2, with memory, `burn_in` and `rescale`

Values are numbers, or distributions: C51 and QR-DQN, see `values`.

Each trained row regresses Q(o[t], a[t]) on

    y[t] = h( r[t] + d[t] r[t+1] + ... + d[t]..d[t+n-1] h^-1(v(o[t+n])) )
    v(o) = Q(o, a*; target),   a* = argmax Q(o, a; online) if double, else of the target

d is gamma, or 0 where the episode terminated. Where it is cut by a time limit, or the
unroll ends, the target bootstraps there after fewer steps. h is the identity, or
`returns.squashed`.

Sources: Mnih et al., Nature 518 (2015), algorithm 1; van Hasselt et al.,
arXiv:1509.06461, equation 4; Schaul et al., arXiv:1511.05952, algorithm 1; Horgan et
al., arXiv:1803.00933, section 3; Kapturowski et al., R2D2 (ICLR 2019), section 2.
"""

from jaxrl_par.algorithms.dqn.agent import Acting, DQNCarry, DQNState, dqn
from jaxrl_par.algorithms.dqn.config import DQNConfig

__all__ = ["Acting", "DQNCarry", "DQNConfig", "DQNState", "dqn"]
