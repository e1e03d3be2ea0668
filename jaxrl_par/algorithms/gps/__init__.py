"""Guided policy search: controllers that are easy to find teach a policy that acts.

`guide` has what happens to local policies in an iteration, `policy` the one they teach;
`loops.guided` runs both. What they are made of stands alone: `lqr` and `ilqg` plan with
known dynamics, `regression` and `mixture` fit them, `constrained` is the trust region.
"""

from jaxrl_par.algorithms.gps.config import GPSConfig, PriorConfig
from jaxrl_par.algorithms.gps.guide import guided_policy_search
from jaxrl_par.algorithms.gps.policy import global_policy

__all__ = ["GPSConfig", "PriorConfig", "global_policy", "guided_policy_search"]
