"""Environment steps until now, in the state of a learner: what its schedules follow.

Rates of learning and exploration are annealed by environment steps, the unit of
budgets. An algorithm keeps an `Elapsed` anywhere in its state; every topology counts
for it, as it counts `Run.progress`. Code that calls `Agent.apply` without a topology
has to call `passed` too, where a rate is annealed.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from jaxrl_par.types import Count, State


class Elapsed(NamedTuple):
    """Environment steps of all environments since the start."""

    env_steps: Count

    @staticmethod
    def zero() -> "Elapsed":
        return Elapsed(Count.zero())

    def fraction(self, total: Num[Array, ""] | float | int) -> Float[Array, ""]:
        """Share of `total` steps that has passed, at most 1; `total` may be traced."""
        millions, units = (jnp.asarray(x, jnp.float32) for x in self.env_steps)
        return jnp.minimum((millions * 1e6 + units) / jnp.float32(total), 1.0)


def passed(state: State, env_steps: Int[Array, ""] | int) -> State:
    """The state, with so many more environment steps in each `Elapsed` in it.

    They are counted once their trajectory was learned from, applied or refused.
    """

    def counted(part: Any) -> Any:
        is_counter = isinstance(part, Elapsed)
        return Elapsed(part.env_steps.add(env_steps)) if is_counter else part

    return jax.tree.map(counted, state, is_leaf=lambda x: isinstance(x, Elapsed))
