"""Whole episodes of many pairs of members, each with parameters of its own.

The members of a pair meet the same random numbers, which are drawn once for both: where
networks are small, most of a step's time is drawing them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_par import rollout
from jaxrl_par.envs import Environment
from jaxrl_par.envs.base import refuse_staggered
from jaxrl_par.types import Agent, Params, PRNGKey, TimeStep, Trajectory


class Playing(NamedTuple):
    """Members in the middle of their episodes, leaves [P, 2, E, ...] but for the first
    and the last."""

    t: Int[Array, ""]
    streams: rollout.Streams
    running: Bool[Array, "P 2 E"]
    returns: Float[Array, "P 2 E"]
    lengths: Int[Array, "P 2 E"]
    own: Trajectory
    """[max_steps, E, ...] of the very last member, until its episodes are over."""


def play(
    agent: Agent,
    env: Environment,
    members: Params,
    keys: Key[Array, " P"],
    cap: Int[Array, ""],
    max_steps: int,
) -> Playing:
    """An episode of all members in all environments; the last pair's is not capped.

    Args:
      members: leaves [P, 2, ...]
      keys: of each pair.

    Raises:
      RefusedError: first episodes of `env` are staggered.
    """
    refuse_staggered(env)
    # Of a greedy agent, whose actions need no keys, none are drawn.
    start_keys, act_keys, env_keys = jax.vmap(jax.random.split, (0, None), 1)(keys, 3)
    starts = _pairs(lambda params, key: rollout.start(agent, env, key), (0, None))
    streams: rollout.Streams = starts(members, start_keys)
    shape = streams.step.first.shape
    capped = (jnp.arange(shape[0]) < shape[0] - 1)[:, None, None]
    folded = jax.vmap(jax.random.fold_in, (0, None))
    advanced = _pairs(partial(_advanced, agent, env), (0, 0, None, None))

    def turn(now: Playing) -> Playing:
        drawn = (folded(act_keys, now.t), folded(env_keys, now.t))
        streams, done = advanced(members, now.streams, *drawn)
        (_, reward, _), t, step = done, now.t + 1, streams.step
        rows = now.own.action, now.own.reward, now.own.discount
        # Others may still play: what comes now is no part of its episodes.
        over = jnp.where(jnp.any(_last(now.running)), 0, max_steps + 1)
        own = Trajectory(
            _written(now.own.steps, _last(step), over + t),
            *_written(rows, _last(done), over + now.t),
            extras={},
            carry=(),
        )
        running = now.running & ~step.last & ~(capped & (t >= cap))
        return Playing(
            t,
            streams,
            running,
            now.returns + jnp.where(now.running, reward, 0.0),
            now.lengths + now.running,
            own,
        )

    def goes_on(now: Playing) -> Bool[Array, ""]:
        return (now.t < max_steps) & jnp.any(now.running)

    zeros = jnp.zeros(shape, jnp.float32)
    params = _last(members)
    own = rollout.shapes(agent, params, _last(streams.step), max_steps)
    start = Playing(
        jnp.int32(0),
        streams,
        jnp.ones(shape, jnp.bool_),
        zeros,
        jnp.zeros(shape, jnp.int32),
        _begun(own, _last(streams.step)),
    )
    return jax.lax.while_loop(goes_on, turn, start)


def _pairs(function: Callable, within: tuple[int | None, ...]) -> Callable:
    """Over pairs, and within them over what is not shared."""
    return jax.vmap(jax.vmap(function, within))


def _advanced(
    agent: Agent,
    env: Environment,
    params: Params,
    streams: rollout.Streams,
    act_key: PRNGKey,
    env_key: PRNGKey,
) -> tuple[rollout.Streams, tuple[Any, Array, Array]]:
    """One member's environments after a step, and (action, reward, discount)."""
    action, carry, _ = agent.act(params, streams.carry, streams.step, act_key)
    env_state, step, reward, discount = env.step(streams.env_state, action, env_key)
    reward, discount = (x.astype(jnp.float32) for x in (reward, discount))
    return rollout.Streams(env_state, step, carry), (action, reward, discount)


def _last(tree: Any) -> Any:
    """The second member of the last pair."""
    return jax.tree.map(lambda x: x[-1, -1], tree)


def _begun(shapes: Trajectory, step: TimeStep) -> Trajectory:
    """Before the first action: rows that nothing is known of are `last`, and what they
    show is no number, which statistics leave out."""

    def unseen(x: Any) -> Array:
        floats = jnp.issubdtype(x.dtype, jnp.floating)
        return jnp.full(x.shape, jnp.nan if floats else 0, x.dtype)

    shapes = shapes._replace(extras={}, carry=())
    own = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    over = jnp.ones_like(own.steps.last)
    obs = jax.tree.map(unseen, shapes.steps.obs)
    own = own._replace(steps=own.steps._replace(obs=obs, last=over))
    return own._replace(steps=_written(own.steps, step, jnp.int32(0)))


def _written(rows: Any, row: Any, t: Int[Array, ""]) -> Any:
    """Behind the last row nothing is written."""
    return jax.tree.map(lambda rows, x: rows.at[t].set(x, mode="drop"), rows, row)
