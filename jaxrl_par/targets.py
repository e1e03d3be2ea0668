"""Copies of parameters that follow them: target networks."""

import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl_par.types import Params

T = TypeVar("T", bound=Params)
_SHORTEST = 1e-3
"""Share of the way below which float32 loses steps of a copy, while it is still 1 in
10^4 away."""


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


def followed(
    new: T,
    old: T,
    phase: Int[Array, ""],
    period: Int[Array, ""] | int,
    rate: Float[Array, ""] | float,
) -> tuple[T, Int[Array, ""]]:
    """`old`, moved towards `new` in every `period`-th update, and the next phase.

    A step is as long as those of `rate` in each of these updates, 1 - (1 - rate)^period
    of the way. One that is a small share of it is lost in float32, where the two are
    near: with 1e-4 a copy of 1 stops at 40 % of the way to 1.001. So slow copies take
    longer steps, more rarely.

    Args:
      phase: updates since `old` moved, below `period`.
    """
    moves = phase + 1 >= period
    step = jnp.float32(-jnp.expm1(period * jnp.log1p(-jnp.float32(rate))))
    # As for `renewed`.
    phase = (phase + 1) % period
    return polyak(new, old, jnp.where(moves, step, 0.0)), phase


def lost_steps(rate: Any, period: Any) -> list[str]:
    """That copies would stand still before they are where they should be, in a line for
    `problems` of a config with `target_rate` and `target_period`."""
    traced = not isinstance(rate, int | float) or not isinstance(period, int)
    if traced or not 0 < rate < 1 or 1 - (1 - rate) ** min(period, 2**31) >= _SHORTEST:
        return []
    needed = math.ceil(math.log1p(-10 * _SHORTEST) / math.log1p(-rate))
    return [
        f"target_rate = {rate} makes steps that float32 loses: with target_period ="
        f" {needed} they are longer, and rarer"
    ]
