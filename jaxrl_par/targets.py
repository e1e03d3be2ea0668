"""Copies of parameters that follow them: target networks."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl_par.types import Params

T = TypeVar("T", bound=Params)


def renewed(
    new: T, old: T, phase: Int[Array, ""], period: Int[Array, ""] | int
) -> tuple[T, Int[Array, ""]]:
    """`old`, replaced by `new` in every `period`-th update, and the next phase.

    Args:
      phase: updates since `old` was replaced, below `period`.
    """
    due = phase + 1 >= period
    # Modulo, so that a phase spoilt by a race recovers within one period.
    phase = (phase + 1) % period
    return jax.tree.map(lambda x, y: jnp.where(due, x, y), new, old), phase


def polyak(new: T, old: T, rate: Float[Array, ""] | float) -> T:
    """`old`, moved towards `new` by that share of the way.

    Source: Lillicrap et al., arXiv:1509.02971, algorithm 1 (tau).
    """
    return jax.tree.map(lambda x, y: y + rate * (x - y), new, old)
