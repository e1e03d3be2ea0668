"""Policies that make steps within a trust region: TRPO and Q-Prop.

    policy   theta <- theta + s, the step of `jaxrl_par.trust_region` for the gain
                 mean of pi / mu A,   A of GAE, mu the policy that acted
    values   v <- several steps of an optimizer of its own, on (A + v_old - v)**2 / 2

What `grad` gives is the step, searched over the joint batch of all devices, and `apply`
adds it: no optimizer and no mean comes between. Values are fitted after it, from the
estimate that the step was made with.

A step fits the parameters that it was searched from and no others (`Agent.reduction` is
"joint"). Topologies where others may have moved meanwhile refuse it, or reject it.

Sources: Schulman et al., arXiv:1502.05477 (TRPO); Gu et al., arXiv:1611.02247 (Q-Prop);
Schulman et al., arXiv:1506.02438 (GAE, and values with a trust region of their own,
which an optimizer replaces here).
"""

from jaxrl_par.algorithms.trust_region.agent import TRPOState
from jaxrl_par.algorithms.trust_region.config import QPropConfig, TRPOConfig
from jaxrl_par.algorithms.trust_region.q_prop import q_prop
from jaxrl_par.algorithms.trust_region.trpo import trpo

__all__ = ["QPropConfig", "TRPOConfig", "TRPOState", "q_prop", "trpo"]
