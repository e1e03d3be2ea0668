"""How many members a model has, and which rows each is to see."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxrl_par.errors import above, at_least, below
from jaxrl_par.types import PRNGKey

_POISSON = np.cumsum([np.exp(-1.0) / x for x in (1, 1, 2, 6, 24, 120, 720)])
"""Probabilities that a count is at most 0, 1, .., 6."""


@dataclass(frozen=True)
class WorldModelConfig:
    """How many members, and when they are believed."""

    num_members: int = 5
    """E"""
    held_out: float = 0.1
    """Share of rows that no member is to see; those that none happens to see add to
    them."""
    believed_below: float = 0.1
    """The running mean of squared errors in rows held out, below which the model is
    used: 1 is what a constant would have."""
    min_updates: int = 200
    """Updates before it may be used at all."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_members=1, min_updates=0, held_out=0)
        found += above(self, believed_below=0)
        return found + below(self, held_out=1)


def drawn_members(
    key: PRNGKey, num_rows: int, config: WorldModelConfig
) -> Int[Array, "B E"]:
    """How often each member sees each row: Poisson(1), or 0 where it is held out."""
    count_key, held_key = jax.random.split(key)
    place = jax.random.uniform(count_key, (num_rows, config.num_members, 1))
    bounds = jnp.asarray(_POISSON, jnp.float32)[None, None]
    counts = jnp.sum(place > bounds, axis=-1, dtype=jnp.int8)
    held = jax.random.uniform(held_key, (num_rows, 1)) < config.held_out
    return jnp.where(held, jnp.int8(0), counts)
