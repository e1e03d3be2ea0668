"""Normalised observations for any agent: statistics are part of what it learns.

They travel with the parameters, so that actors in other threads, evaluation and export
see what the learner saw, and they are merged over devices like a gradient. What was
acted is learned with the statistics that acted; the new ones hold from the next unroll.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError, above, lacking, refuse_any
from jaxrl_par.networks.plain import named_statistics
from jaxrl_par.statistics import Moments, merged, moments
from jaxrl_par.types import (
    ActFn,
    Agent,
    Batch,
    Carry,
    Extras,
    Obs,
    PlainPolicy,
    PRNGKey,
    TimeStep,
    Trajectory,
    as_acted,
)


class Normalized(NamedTuple):
    """The agent's own state, or parameters, and statistics of its observations."""

    inner: Any
    statistics: Moments


def normalize_observations(agent: Agent, clip: float = 10.0) -> Agent:
    """The same agent, which sees (obs - mean) / std in place of obs.

    Leaves of integers, such as discrete observations, are left as they are. Rows with
    an observation that is not finite do not enter the statistics.

    Args:
      clip: bound of the magnitude of what it sees.

    Raises:
      RefusedError: `agent` is none, or `clip` not above 0, or the agent normalises its
        layers over observations of its own.
    """
    makes = "an Agent, as algorithms make"
    refuse_any(
        lacking(makes, "init", "act", "grad", "apply", agent=agent)
        + above({"clip": clip}, clip=0)
    )
    if agent.reference is not None:
        raise RefusedError(
            "normalize: the agent has a reference batch, over which its layers are"
            " normalised, observations with them: take one of the two"
        )

    show = partial(_shown, clip=clip)

    def shown(state: Normalized, trajectory: Trajectory) -> Trajectory:
        return trajectory._replace(steps=show(state.statistics, trajectory.steps))

    def init(key: PRNGKey, step: TimeStep) -> Normalized:
        statistics = _none_seen(step.obs)
        return Normalized(agent.init(key, show(statistics, step)), statistics)

    def complete(params: Normalized, carry: Carry, trajectory: Trajectory) -> Extras:
        return agent.complete(params.inner, carry, shown(params, trajectory))

    def prepare(state: Normalized, trajectory: Trajectory, axis: Axis) -> Batch:
        return agent.prepare(state.inner, shown(state, trajectory), axis)

    def observe(state: Normalized, trajectory: Trajectory, axis: Axis) -> Normalized:
        inner = agent.observe(state.inner, shown(state, trajectory), axis)
        # The row that the next unroll starts with is left to it.
        seen = trajectory.rows.obs
        return Normalized(inner, counted(state.statistics, seen, axis))

    return _acting(agent, clip)._replace(
        init=init,
        prepare=prepare,
        observe=observe,
        complete=as_acted if agent.complete is as_acted else complete,
        params=lambda state: state._replace(inner=agent.params(state.inner)),
        grad=lambda state, batch, key, axis: agent.grad(state.inner, batch, key, axis),
        apply=lambda state, grads, metrics: Normalized(
            agent.apply(state.inner, grads, metrics), state.statistics
        ),
    )


def _acting(agent: Agent, clip: float) -> Agent:
    """The agent, which acts on normalised observations, here and where it is left."""

    def acting(inner_act):
        def act(params: Normalized, carry: Carry, step: TimeStep, key: PRNGKey):
            seen = _shown(params.statistics, step, clip)
            return inner_act(params.inner, carry, seen, key)

        return act

    def preferences(params: Normalized, carry: Carry, step: TimeStep):
        assert agent.preferences is not None
        seen = _shown(params.statistics, step, clip)
        return agent.preferences(params.inner, carry, seen)

    act, plain = acting(agent.act), agent.exportable
    return agent._replace(
        act=act,
        greedy=acting(agent.greedy),
        preferences=None if agent.preferences is None else preferences,
        plain=None if plain is None else _plain(plain, act, clip),
    )


def _shown(statistics: Moments, step: TimeStep, clip: float) -> TimeStep:
    return step._replace(obs=normalized(statistics, step.obs, clip))


def _none_seen(obs: Obs) -> Moments:
    """The moments before any of these observations [B, ...] is counted."""
    floats = jax.tree.map(_floats, obs)
    return Moments(
        count=jnp.float32(0),
        mean=jax.tree.map(lambda x: jnp.zeros_like(x[0]), floats),
        variance=jax.tree.map(lambda x: jnp.ones_like(x[0]), floats),
    )


def _plain(plain: PlainPolicy, act: ActFn, clip: float) -> PlainPolicy:
    """The policy, which sees normalised observations too."""

    def described() -> dict[str, Any]:
        return plain.described() | {"normalization": {"clip": clip}}

    def arrays(params: Normalized) -> dict[str, Array]:
        observations = plain.described()["observations"]
        seen = named_statistics(params.statistics, observations)
        return plain.arrays(params.inner) | seen

    return plain._replace(described=described, arrays=arrays, act=act)


def normalized(statistics: Moments, obs: Obs, clip: float) -> Obs:
    """Observations [..., *shape] with mean 0 and variance 1."""

    def leaf(x, mean, variance):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        mean, variance = (jnp.broadcast_to(y, x.shape) for y in (mean, variance))
        return jnp.clip((x - mean) * jax.lax.rsqrt(variance + 1e-8), -clip, clip)

    return jax.tree.map(leaf, obs, statistics.mean, statistics.variance)


def counted(statistics: Moments, obs: Obs, axis: Axis) -> Moments:
    """Moments that count the finite observations [T, B, ...] of all devices, too."""
    rows = jax.tree.map(_floats, obs)
    leaves = jax.tree.leaves(rows)
    finite = [jnp.all(jnp.isfinite(x), axis=range(2, x.ndim)) for x in leaves]
    return merged(statistics, moments(rows, jnp.stack(finite).all(0), axis))


def _floats(x: Array) -> Array:
    return x.astype(jnp.float32)
