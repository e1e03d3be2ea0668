"""From a batch to new parameters: one synchronous update, or many in a row."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Int

from jaxrl_par import random
from jaxrl_par.axis import Axis
from jaxrl_par.measured import Metric
from jaxrl_par.types import (
    Agent,
    Batch,
    Grads,
    Info,
    Metrics,
    PRNGKey,
    State,
    Trajectory,
    nothing,
)

METRICS = {
    "grad_norm": Metric("1", "of the whole gradient, before it is clipped"),
    "skipped": Metric(
        "share of updates", "whose gradient was not finite, and was not applied"
    ),
}


def learn(
    agent: Agent,
    state: State,
    trajectory: Trajectory,
    key: PRNGKey,
    *,
    num_epochs: int = 1,
    num_minibatches: int = 1,
    axis: Axis = Axis(),
) -> tuple[State, Metrics]:
    """All updates from one trajectory: prepared once, then by minibatches.

    Metrics are means over the updates, except `skipped`, their number not applied.

    Raises:
      ValueError: `num_minibatches` does not divide the rows (or sequences).
    """
    batch = agent.prepare(state, trajectory, axis)
    if num_epochs == num_minibatches == 1:
        state, info = update(agent, state, batch, key, axis)
        return observe(agent, state, trajectory, info.metrics, axis), info.metrics

    num_items, take = _items(batch)
    if num_items % num_minibatches:
        raise ValueError(
            f"num_minibatches = {num_minibatches} does not divide the {num_items} rows"
            " or sequences that one device learns from"
        )

    def minibatch(state, inputs):
        rows, key = inputs
        state, info = update(agent, state, take(rows), key, axis)
        return state, info.metrics

    def epoch(state, key):
        order_key, update_key = jax.random.split(key)
        order = random.permutation(order_key, num_items).reshape(num_minibatches, -1)
        keys = jax.random.split(update_key, num_minibatches)
        return jax.lax.scan(minibatch, state, (order, keys))

    keys = jax.random.split(key, num_epochs)
    state, metrics = jax.lax.scan(epoch, state, keys)
    skipped = jnp.sum(jnp.asarray(metrics.pop("skipped")))
    metrics = jax.tree.map(jnp.mean, metrics) | {"skipped": skipped}
    return observe(agent, state, trajectory, metrics, axis), metrics


def observe(
    agent: Agent, state: State, trajectory: Trajectory, done: Metrics, axis: Axis
) -> State:
    """As `Agent.observe`, after the updates whose metrics are `done`.

    What was acted is learned with the statistics that acted: at zero lag the policy
    that learns is then the one that acted.
    """
    if agent.observe is nothing:
        return state
    return agent.observe(state, axis.after(trajectory, done), axis)


def update(
    agent: Agent,
    state: State,
    batch: Batch,
    key: PRNGKey,
    axis: Axis = Axis(),
    accepted: Bool[Array, ""] | bool = True,
) -> tuple[State, Info]:
    """One synchronous update: the gradient, its mean over the axis, its use.

    A gradient that is not finite is not applied: `skipped` is then 1. `grad_norm` is
    that of the whole gradient, before the optimizer's clipping.

    Args:
      accepted: whether the gradient may be applied, the same on all devices.
    """
    grads, info = agent.grad(axis.apart(state), batch, key, axis)
    grads, metrics = combined(grads, agent, axis), axis.mean(info.metrics)
    state, applied = apply_finite(agent.apply, state, grads, metrics, accepted)
    return state, info._replace(metrics=metrics | applied)


def apply_finite(
    apply: Callable[[State, Grads, Metrics], State],
    state: State,
    grads: Grads,
    metrics: Metrics,
    accepted: Bool[Array, ""] | bool = True,
) -> tuple[State, dict[str, Array]]:
    """The state with a gradient applied, if the gradient is finite and `accepted`.

    Returns:
      (state, metrics): `grad_norm`, and `skipped`, 1 if it is not finite.
    """
    # Raveled, the norm is two kernels for all leaves, not two for each.
    norm = optax.tree.norm(ravel_pytree(grads)[0])
    finite = jnp.isfinite(norm)
    use = finite & accepted
    applied = apply(state, grads, metrics)
    state = jax.tree.map(lambda new, old: _where(use, new, old), applied, state)
    skipped = 1.0 - finite.astype(jnp.float32)
    return state, {"grad_norm": norm, "skipped": skipped}


def combined(grads: Grads, agent: Agent, axis: Axis) -> Grads:
    """The gradient of the joint batch, from those of its parts along the axis."""
    if agent.reduction in ("equal", "joint"):
        return grads
    return axis.sum(grads) if agent.reduction == "sum" else axis.mean(grads)


def _items(batch: Batch) -> tuple[int, Callable[[Int[Array, " N"]], Batch]]:
    """How many items a batch has, and what takes some of them.

    Those of a trajectory, which an agent with the default `prepare` learns from, are
    its environments, [T, B, ...]; of any other batch, its rows [N, ...].
    """
    if isinstance(batch, Trajectory):
        return batch.num_lanes, batch.lanes
    num_rows = jax.tree.leaves(batch)[0].shape[0]
    return num_rows, lambda rows: jax.tree.map(lambda x: _take(x, rows), batch)


def _take(x: Array, index: Int[Array, " N"]) -> Array:
    # Rows of one axis are copied three times faster on CPU than rows of several.
    return x.reshape(len(x), -1)[index].reshape(*index.shape, *x.shape[1:])


def _where(condition: Bool[Array, ""], x: Array, y: Array) -> Array:
    return jax.lax.select(jnp.broadcast_to(condition, jnp.shape(x)), x, y)
