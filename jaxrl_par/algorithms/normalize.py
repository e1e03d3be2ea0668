"""Normalised observations for any agent: statistics are part of what it learns.

They travel with the parameters, so that actors in other threads, evaluation and export
see what the learner saw, and they are merged over devices like a gradient. What was
acted is learned with the statistics that acted; the new ones hold from the next unroll.

Source of the merge: Chan, Golub and LeVeque (1979), as in Welford's method.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.axis import Axis
from jaxrl_par.types import (
    Agent,
    Batch,
    Carry,
    Obs,
    Params,
    PRNGKey,
    TimeStep,
    Trajectory,
)


class Statistics(NamedTuple):
    """Of all observations so far, leaves as one observation."""

    count: Float[Array, ""]
    """Observations seen by one device, as all devices see equally many."""
    mean: Obs
    variance: Obs


class NormalizedParams(NamedTuple):
    """What acts: parameters and the statistics that they were trained with."""

    inner: Params
    statistics: Statistics


class NormalizedState(NamedTuple):
    """The agent's own state, and statistics of its observations."""

    inner: Any
    statistics: Statistics

    @property
    def params(self) -> NormalizedParams:
        return NormalizedParams(self.inner.params, self.statistics)


def normalize_observations(agent: Agent, clip: float = 10.0) -> Agent:
    """The same agent, which sees (obs - mean) / std in place of obs.

    Leaves of integers, such as discrete observations, are left as they are. Rows with
    an observation that is not finite do not enter the statistics.

    Args:
      clip: bound of the magnitude of what it sees.
    """

    def show(statistics: Statistics, step: TimeStep) -> TimeStep:
        return step._replace(obs=normalized(statistics, step.obs, clip))

    def init(key: PRNGKey, step: TimeStep) -> NormalizedState:
        floats = jax.tree.map(_floats, step.obs)
        statistics = Statistics(
            count=jnp.zeros(()),
            mean=jax.tree.map(lambda x: jnp.zeros(x.shape[1:]), floats),
            variance=jax.tree.map(lambda x: jnp.ones(x.shape[1:]), floats),
        )
        return NormalizedState(agent.init(key, show(statistics, step)), statistics)

    def acting(inner_act):
        def act(params: NormalizedParams, carry: Carry, step: TimeStep, key: PRNGKey):
            return inner_act(params.inner, carry, show(params.statistics, step), key)

        return act

    def prepare(
        state: NormalizedState, trajectory: Trajectory, axis: Axis
    ) -> tuple[NormalizedState, Batch]:
        seen = trajectory._replace(steps=show(state.statistics, trajectory.steps))
        inner, batch = agent.prepare(state.inner, seen, axis)
        new = merged(state.statistics, trajectory.steps.obs, axis)
        return NormalizedState(inner, new), batch

    return agent._replace(
        init=init,
        act=acting(agent.act),
        greedy=acting(agent.greedy),
        prepare=prepare,
        grad=lambda state, batch, key: agent.grad(state.inner, batch, key),
        apply=lambda state, grads: state._replace(
            inner=agent.apply(state.inner, grads)
        ),
    )


def normalized(statistics: Statistics, obs: Obs, clip: float) -> Obs:
    """Observations [..., *shape] with mean 0 and variance 1."""

    def leaf(x, mean, variance):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return jnp.clip((x - mean) * jax.lax.rsqrt(variance + 1e-8), -clip, clip)

    return jax.tree.map(leaf, obs, statistics.mean, statistics.variance)


def merged(statistics: Statistics, obs: Obs, axis: Axis) -> Statistics:
    """With the observations [T+1, B, ...] of all devices; they meet along `axis`.

    The row that the next unroll starts with is left to it.
    """
    rows = jax.tree.map(lambda x: _floats(x[:-1]), obs)
    finite = jnp.stack(
        [jnp.all(jnp.isfinite(x), axis=range(2, x.ndim)) for x in jax.tree.leaves(rows)]
    ).all(0)
    count = axis.mean(jnp.sum(finite, dtype=jnp.float32))
    total = statistics.count + count
    share = count / jnp.maximum(total, 1.0)

    def leaf(x, old_mean, old_variance):
        keep = finite.reshape(*finite.shape, *[1] * (x.ndim - 2))
        safe = jnp.maximum(count, 1.0)
        new_mean = axis.mean(jnp.sum(jnp.where(keep, x, 0.0), axis=(0, 1))) / safe
        squares = jnp.where(keep, jnp.square(x - new_mean), 0.0)
        new_variance = axis.mean(jnp.sum(squares, axis=(0, 1))) / safe
        delta = new_mean - old_mean
        variance = (
            (1.0 - share) * old_variance
            + share * new_variance
            + share * (1.0 - share) * jnp.square(delta)
        )
        return old_mean + share * delta, variance

    pairs = jax.tree.map(leaf, rows, statistics.mean, statistics.variance)
    means, variances = jax.tree.transpose(
        jax.tree.structure(rows), jax.tree.structure((0, 0)), pairs
    )
    return Statistics(total, means, variances)


def _floats(x: Array) -> Array:
    return x.astype(jnp.float32)
