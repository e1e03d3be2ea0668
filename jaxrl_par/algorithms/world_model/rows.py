"""What windows say of the environment, and in which units it is learned."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_par.statistics import Moments, scales
from jaxrl_par.types import Action, Trajectory


class Seen(NamedTuple):
    """Rows [N], or their moments and bounds."""

    obs: Any
    """[N, D]"""
    change: Any
    """To the next observation, [N, D]."""
    reward: Any


class Rows(NamedTuple):
    """What a window says, N = L K rows; 0 where there is nothing to learn."""

    seen: Seen
    action: Action
    ended: Float[Array, " N"]
    keep: Bool[Array, " N"]
    members: Float[Array, "N E"]


def rows_of(batch: Trajectory) -> Rows:
    """The transitions of windows; those that are none, or not finite, are not kept."""
    steps = batch.steps
    obs, after = steps.obs[:-1], steps.obs[1:]
    seen = Seen(obs, after - obs, batch.reward)
    finite = [jnp.isfinite(x) for x in seen]
    finite = [x if x.ndim == 2 else jnp.all(x, axis=2) for x in finite]
    keep = jnp.stack([~steps.last[:-1], *finite]).all(0)

    def flat(x: Array) -> Array:
        kept = keep.reshape(*keep.shape, *[1] * (x.ndim - 2))
        x = jnp.where(kept, x, jnp.zeros_like(x))
        return x.reshape(-1, *x.shape[2:])

    members = batch.extras["members"].astype(jnp.float32)
    ended = (batch.discount == 0).astype(jnp.float32)
    seen, action, ended, members = jax.tree.map(
        flat, (seen, batch.action, ended, members)
    )
    return Rows(seen, action, ended, keep.reshape(-1), members)


def in_units(statistics: Moments, seen: Seen) -> Seen:
    """Less their means, by their deviations."""

    def unit(x: Array, mean: Array, deviation: Array) -> Array:
        mean, deviation = (jnp.broadcast_to(y, x.shape) for y in (mean, deviation))
        return (x - mean) / deviation

    return jax.tree.map(unit, seen, statistics.mean, scales(statistics))
