"""Off-policy learning of real numbers for actions, from replay: the actor-critics SAC,
TD3 and DDPG, and NAF, Q-learning whose best action is known.

A policy is improved by the critics' slope in the action, and critics learn from what
was replayed, whoever acted it. In each trained row t, with d the gamma of the step or 0
where the episode terminated, and Q' slow copies:

    y[t] = r[t] + d[t] r[t+1] + ... + d[t]..d[t+n-1] min_i Q'_i(o[t+n], u[t+n])

    SAC   u ~ pi(o), and r[t] + d[t] alpha H[t+1] in place of r[t], H = -log pi(u|o)
          policy       alpha log pi(u|o) - min_i Q_i(o, u)
          temperature  -log(alpha) (log pi(u|o) + target)
    TD3   u = mu'(o) + clip(noise), within the bounds
          policy       -Q_1(o, mu(o)), in every `policy_delay`-th update
    DDPG  TD3 with one critic, without the delay and the noise on u
    NAF   one network gives V, mu and P: Q = V - (u - mu)^T P (u - mu) / 2
          y ends in V'(o[t+n]), that of the best action; there is no other loss

All of them are in units of the bounds (`networks.continuous`): u is in [-1, 1]^A, and
so are log pi and its target. Entropies of n steps are those of fresh actions in the
states on the way; that of the first action is no part of its value.

Each gradient is that of its own loss alone: policies see constant critics, critics a
constant policy, and the temperature a constant log pi. All three are computed at the
same parameters, so that they can be computed in one place and applied in another.

Sources: Haarnoja et al., arXiv:1812.05905, equations 5 to 18 (SAC); Fujimoto et al.,
arXiv:1802.09477, algorithm 1 (TD3); Lillicrap et al., arXiv:1509.02971, algorithm 1
(DDPG); Horgan et al., arXiv:1803.00933, section 3 and appendix D (Ape-X DPG); Gu et
al., arXiv:1603.00748, section 4 (NAF), and arXiv:1610.00633 (asynchronous NAF).
"""

from jaxrl_par.algorithms.actor_critic.config import (
    CriticConfig,
    DDPGConfig,
    NAFConfig,
    OffPolicyConfig,
    SACConfig,
    TD3Config,
)
from jaxrl_par.algorithms.actor_critic.critic import CriticState, critic_of
from jaxrl_par.algorithms.actor_critic.naf import naf
from jaxrl_par.algorithms.actor_critic.parts import Acting, OffPolicyState, Trained
from jaxrl_par.algorithms.actor_critic.sac import sac
from jaxrl_par.algorithms.actor_critic.td3 import ddpg, td3

__all__ = [
    "Acting",
    "CriticConfig",
    "CriticState",
    "DDPGConfig",
    "NAFConfig",
    "OffPolicyConfig",
    "OffPolicyState",
    "SACConfig",
    "TD3Config",
    "Trained",
    "critic_of",
    "ddpg",
    "naf",
    "sac",
    "td3",
]
