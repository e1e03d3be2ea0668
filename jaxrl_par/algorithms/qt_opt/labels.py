"""Bellman targets of what was acted: labels, which whoever trains only regresses on.

    y = clip(r + d V(o'), 0, 1),   d = gamma, or 0 where the action ended the episode

Values are probabilities, so targets are too: what leaves [0, 1], by a cost of each step
for instance, is clipped. At a time limit o' is the final observation, and V counts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jaxrl_par.algorithms.qt_opt.cem import cross_entropy
from jaxrl_par.algorithms.qt_opt.config import QTOptConfig
from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks.candidates import CandidateValues
from jaxrl_par.networks.continuous import Units
from jaxrl_par.types import Params, PRNGKey, TimeStep, Trajectory


class Copies(NamedTuple):
    """What targets are computed with."""

    slow: Params
    """theta_1: it follows what is learned slowly."""
    delayed: Params
    """theta_2: what the slow copy was some time ago."""


class Labelled(NamedTuple):
    """N rows to regress on, without an order."""

    steps: TimeStep
    unit: Float[Array, "N A"]
    """What was acted, in units of the bounds."""
    target: Float[Array, " N"]
    weight: Float[Array, " N"]
    """Importance of each row."""
    last: Bool[Array, " N"]
    """It is no transition, and weighs nothing."""


class Nets(NamedTuple):
    """What QT-Opt is made of, nothing of which is traced."""

    values: CandidateValues
    units: Units
    config: QTOptConfig


def labelled(
    copies: Copies, batch: Trajectory, key: PRNGKey, axis: Axis, nets: Nets
) -> Labelled:
    """The L K rows of a batch [L, K], with their targets."""
    after = _rows(jax.tree.map(lambda x: x[1:], batch.steps))
    keys = row_keys(key, batch, axis)
    future = future_values(copies, after, keys, nets)
    reward, discount = _rows((batch.reward, batch.discount))
    same_shape(future, reward)
    weight = batch.extras.get("weight", jnp.ones_like(batch.reward))
    steps = _rows(batch.rows)
    return Labelled(
        steps=steps,
        unit=nets.units.unit(_rows(batch.action)),
        target=targets(reward, nets.config.gamma * discount, future),
        weight=_rows(weight),
        last=steps.last,
    )


def targets(
    rewards: Float[Array, " N"],
    discounts: Float[Array, " N"],
    future: Float[Array, " N"],
) -> Float[Array, " N"]:
    """Probabilities, whatever rewards are."""
    return jnp.clip(rewards + discounts * future, 0.0, 1.0)


def future_values(
    copies: Copies, steps: TimeStep, keys: Key[Array, " N"], nets: Nets
) -> Float[Array, " N"]:
    """V of these states: see `QTOptConfig.target`."""
    values, config = nets.values, nets.config
    seen = values.embed(copies.slow, steps)
    found = cross_entropy(
        keys,
        lambda unit: values.logits(copies.slow, seen, unit),
        len(nets.units.low),
        config.cem,
    )
    largest = jax.nn.sigmoid(found.value)
    if config.target == "single":
        return largest
    seen = values.embed(copies.delayed, steps)
    logits = values.logits(copies.delayed, seen, found.unit[:, None])[:, 0]
    other = jax.nn.sigmoid(logits)
    return other if config.target == "double" else jnp.minimum(largest, other)


def row_keys(key: PRNGKey, batch: Trajectory, axis: Axis) -> Key[Array, " N"]:
    """A key for each row of this instance's part of the joint batch along the axis:
    those that one device would have for it."""
    length, lanes = batch.reward.shape
    key = axis.common(key, batch.reward)
    index = axis.index * lanes + jnp.arange(lanes)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    return jax.vmap(lambda key: jax.random.split(key, length), out_axes=1)(keys).ravel()


def same_shape(x: Array, y: Array) -> None:
    """Accepts two arrays of one shape: of [N] and [N, 1] a sum is [N, N].

    Raises:
      RefusedError: they differ.
    """
    if x.shape != y.shape:
        raise RefusedError(
            f"values and targets must be of one shape, got {[*x.shape]} and"
            f" {[*y.shape]}"
        )


def _rows(tree):
    """Leaves [L K, ...] of leaves [L, K, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
