"""The ensemble: its state, its gradient, and what it predicts."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.agents import accept, stepped
from jaxrl_par.algorithms.world_model.config import WorldModelConfig, drawn_members
from jaxrl_par.algorithms.world_model.rows import Rows, Seen, in_units, rows_of
from jaxrl_par.axis import Axis
from jaxrl_par.networks import Network
from jaxrl_par.statistics import Moments, merged, moments, scales
from jaxrl_par.types import (
    Action,
    Grads,
    Info,
    Mean,
    Metrics,
    Obs,
    Params,
    Prediction,
    PRNGKey,
    TimeStep,
    Trajectory,
    WorldModel,
)

_SLOW = 0.02
"""Share of the newest error in the running one."""
_MOST = 1e6
"""The largest error that is told."""


class WorldModelState(NamedTuple):
    """What is known of the environment."""

    params: Params
    """Leaves [E, ...]."""
    opt_state: optax.OptState
    statistics: Moments
    """Means and variances, each a `Seen`."""
    low: Float[Array, " D"]
    high: Float[Array, " D"]
    """The least and the largest that was ever observed; 0 before there is any. Nothing
    here is infinite: learners that gossip take differences of all numbers."""
    error: Float[Array, ""]
    """Running mean in rows held out, at most 10^6."""
    measured: Int[Array, ""]
    """Batches that had such rows."""
    updates: Int[Array, ""]


def world_model(
    network: Network,
    optimizer: optax.GradientTransformation,
    config: WorldModelConfig = WorldModelConfig(),
) -> WorldModel:
    """An ensemble as a model to imagine with: see the module.

    A member whose loss or gradient is not finite is dropped: it learns nothing, and is
    not asked. The metric `dropped_members` counts them.

    Args:
      network: as `networks.world_network` makes.
      optimizer: clips, schedules and scales the gradient of all members together.

    Raises:
      RefusedError: the config is out of range, or an argument is something else.
    """
    accept(network, optimizer, config, WorldModelConfig)

    def init(key: PRNGKey, step: TimeStep) -> WorldModelState:
        shown = _shown(step.obs, _no_action(network, step))
        start = jax.vmap(lambda key: network.init(key, shown))
        params = start(jax.random.split(key, config.num_members))
        zeros = jnp.zeros(step.obs.shape[1:], jnp.float32)
        nothing = Seen(zeros, zeros, jnp.float32(0))
        ones = jax.tree.map(jnp.ones_like, nothing)
        return WorldModelState(
            params,
            optimizer.init(params),
            Moments(jnp.float32(0), nothing, ones),
            zeros,
            jnp.zeros_like(zeros),  # a buffer that is there twice cannot be donated
            jnp.float32(_MOST),
            jnp.int32(0),
            jnp.int32(0),
        )

    def grad(
        state: WorldModelState, batch: Trajectory, key: PRNGKey, axis: Axis
    ) -> tuple[Grads, Info]:
        del key, axis  # the loss is deterministic, and of this batch alone
        return gradient(network, state, rows_of(batch))

    def apply(
        state: WorldModelState, grads: Grads, metrics: Metrics
    ) -> WorldModelState:
        params, opt_state = stepped(optimizer, state.params, state.opt_state, grads)
        newest: Any = metrics["held_out_error"]
        state = _measured(state, newest)
        updates = state.updates + 1
        return state._replace(params=params, opt_state=opt_state, updates=updates)

    def predict(
        state: WorldModelState, obs: Obs, action: Action, key: PRNGKey
    ) -> Prediction:
        return predicted(network, state, obs, action, key)

    def members(key: PRNGKey, num_rows: int) -> Int[Array, "B E"]:
        return drawn_members(key, num_rows, config)

    def ready(state: WorldModelState) -> Bool[Array, ""]:
        enough = (state.updates >= config.min_updates) & (state.measured > 0)
        return enough & (state.error < config.believed_below)

    return WorldModel(init, grad, apply, observed, predict, members, ready)


def gradient(
    network: Network, state: WorldModelState, rows: Rows
) -> tuple[Grads, Info]:
    """That of all members, 0 of those that are not finite."""
    units = in_units(state.statistics, rows.seen)

    def of_member(params: Params, counts: Float[Array, " N"]):
        change, reward, end = told_by(network, params, units.obs, rows.action)
        squares = jnp.square(change - units.change)
        total = jnp.sum(squares, axis=1) + jnp.square(reward - units.reward)
        errors = total / (squares.shape[1] + 1)
        ends = optax.sigmoid_binary_cross_entropy(end, rows.ended)
        return jnp.mean(counts * (errors + ends)), errors

    each = jax.vmap(jax.value_and_grad(of_member, has_aux=True), (0, 1))
    (losses, errors), grads = each(state.params, rows.members)
    leaves = [
        jnp.all(jnp.isfinite(x), axis=range(1, x.ndim))
        for x in jax.tree.leaves((losses, grads))
    ]
    sound = jnp.stack(leaves).all(0)
    grads = jax.tree.map(lambda x: jnp.where(_like(sound, x), x, 0.0), grads)
    number = jnp.sum(sound, dtype=jnp.float32)
    held = rows.keep & (jnp.sum(rows.members, axis=1) == 0)
    errors = jnp.sum(jnp.where(sound[:, None], errors, 0.0), axis=0)
    # Without any member nothing is known.
    errors = jnp.where(number > 0, errors / jnp.maximum(number, 1.0), _MOST)
    metrics: Metrics = {
        "loss": Mean(jnp.sum(jnp.where(sound, losses, 0.0)), number),
        "held_out_error": Mean(
            jnp.sum(jnp.where(held, errors, 0.0)), jnp.sum(held, dtype=jnp.float32)
        ),
        "dropped_members": sound.size - number,
    }
    return grads, Info(metrics)


def predicted(
    network: Network, state: WorldModelState, obs: Obs, action: Action, key: PRNGKey
) -> Prediction:
    """What a member expects that is drawn for each row, of those that can tell.

    The next observation is within the bounds of what was observed.
    """
    means, deviations = state.statistics.mean, scales(state.statistics)
    nothing = Seen(obs, jnp.zeros_like(obs), jnp.zeros(obs.shape[0]))
    units = in_units(state.statistics, nothing)

    def of_member(params: Params):
        return told_by(network, params, units.obs, action)

    change, reward, end = jax.vmap(of_member)(state.params)  # [E, B, ...]
    sound = jnp.all(jnp.isfinite(change), axis=-1)
    sound &= jnp.isfinite(reward) & jnp.isfinite(end)
    logits = jnp.where(sound.T, 0.0, -jnp.inf)
    member = jax.random.categorical(key, logits)
    rows = jnp.arange(len(obs))
    known = jnp.any(sound, axis=0)
    change_of, reward_of, end_of = (x[member, rows] for x in (change, reward, end))
    after = obs + means.change[None] + deviations.change[None] * change_of
    bounds = (jnp.broadcast_to(x, obs.shape) for x in (state.low, state.high))
    after = jnp.clip(after, *bounds)
    reward = means.reward + deviations.reward * reward_of
    return Prediction(
        jnp.where(known[:, None], after, jnp.nan),
        jnp.where(known, reward, jnp.nan),
        jax.nn.sigmoid(end_of),
        disagreement(change, sound),
    )


def disagreement(
    change: Float[Array, "E B D"], sound: Bool[Array, "E B"]
) -> Float[Array, " B"]:
    """The standard deviation over members that can tell, in the mean over D."""
    number = jnp.maximum(jnp.sum(sound, axis=0), 1)[:, None].astype(jnp.float32)
    change = jnp.where(sound[..., None], change, 0.0)
    mean = jnp.sum(change, axis=0) / number
    apart = jnp.where(sound[..., None], jnp.square(change - mean[None]), 0.0)
    return jnp.mean(jnp.sqrt(jnp.sum(apart, axis=0) / number), axis=-1)


def observed(
    state: WorldModelState, trajectory: Trajectory, axis: Axis
) -> WorldModelState:
    """Means, deviations and bounds with these rows too, of all instances."""
    steps = trajectory.steps
    change = steps.obs[1:] - steps.obs[:-1]
    rows = Seen(steps.obs[:-1], change, trajectory.reward)
    finite = jnp.all(jnp.isfinite(rows.obs) & jnp.isfinite(rows.change), axis=2)
    keep = finite & jnp.isfinite(rows.reward) & ~trajectory.rows.last
    new = moments(rows, keep, axis)
    # Where an episode ends, what was seen last is within bounds, too.
    seen = jnp.concatenate([rows.obs, rows.obs + rows.change])
    kept = jnp.concatenate([keep, keep])[..., None]
    least, most = (jnp.where(kept, x, -jnp.inf) for x in (-seen, seen))
    given = jnp.stack([jnp.max(x, axis=(0, 1)) for x in (least, most)])
    least, most = axis.max(axis.after(given, new.count))
    begun = state.statistics.count > 0
    low = jnp.where(begun, jnp.minimum(state.low, -least), -least)
    high = jnp.where(begun, jnp.maximum(state.high, most), most)
    return state._replace(
        statistics=merged(state.statistics, new),
        low=jnp.where(new.count > 0, low, state.low),
        high=jnp.where(new.count > 0, high, state.high),
    )


def told_by(
    network: Network, params: Params, obs: Float[Array, "N D"], action: Action
) -> tuple[Float[Array, "N D"], Float[Array, " N"], Float[Array, " N"]]:
    """(change, reward, logit of an end) of one member, in units."""
    outputs, _ = network.apply(params, (), _shown(obs, action))
    return outputs


def _shown(obs: Obs, action: Action) -> TimeStep:
    no = jnp.zeros(len(obs), bool)
    return TimeStep((obs, action), no, no)


def _no_action(network: Network, step: TimeStep) -> Action:
    assert network.specs is not None
    spec = network.specs[1]
    return jnp.zeros((step.first.shape[0], *spec.shape), spec.dtype)


def _measured(state: WorldModelState, newest: Mean) -> WorldModelState:
    """With the error in one more batch, if any of its rows are held out."""
    error = jnp.minimum(newest.total / jnp.maximum(newest.count, 1e-9), _MOST)
    running = state.error + _SLOW * (error - state.error)
    running = jnp.where(state.measured > 0, running, error)
    any_ = newest.count > 0
    return state._replace(
        error=jnp.where(any_, running, state.error),
        measured=state.measured + any_.astype(jnp.int32),
    )


def _like(x: Bool[Array, " E"], of: Array) -> Bool[Array, "E ..."]:
    return x.reshape(-1, *[1] * (of.ndim - 1))
