"""Whole episodes of many members at once, each with parameters of its own."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_par import rollout
from jaxrl_par.envs import Environment
from jaxrl_par.types import Agent, Params, PRNGKey, TimeStep, Trajectory


class Playing(NamedTuple):
    """Members in the middle of their episodes, leaves [M, E, ...] but for the first and
    the last."""

    t: Int[Array, ""]
    streams: rollout.Streams
    running: Bool[Array, "M E"]
    returns: Float[Array, "M E"]
    lengths: Int[Array, "M E"]
    own: Trajectory
    """[max_steps, E, ...] of the last member, until all its episodes are over."""


def play(
    agent: Agent,
    env: Environment,
    members: Params,
    keys: Key[Array, " M"],
    cap: Int[Array, ""],
    max_steps: int,
) -> Playing:
    """An episode of all members in all environments; the last member's is not capped.

    Args:
      members: leaves [M, ...]
      keys: equal for members that are to meet the same.
    """
    starts = jax.vmap(lambda key: rollout.start(agent, env, key))
    split = jax.vmap(jax.random.split)(keys)
    streams: rollout.Streams = starts(split[:, 0])
    shape = streams.step.first.shape
    capped = (jnp.arange(shape[0]) < shape[0] - 1)[:, None]

    def turn(now: Playing) -> Playing:
        given = (members, now.streams, split[:, 1], now.t)
        streams, done = jax.vmap(partial(_advanced, agent, env), (0, 0, 0, None))(
            *given
        )
        (_, reward, _), t, step = done, now.t + 1, streams.step
        rows = now.own.action, now.own.reward, now.own.discount
        # Others may still play: what comes now is no part of its episodes.
        over = jnp.where(jnp.any(now.running[-1]), 0, max_steps + 1)
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
    params = jax.tree.map(lambda x: x[-1], members)
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


def _advanced(
    agent: Agent,
    env: Environment,
    params: Params,
    streams: rollout.Streams,
    key: PRNGKey,
    t: Int[Array, ""],
) -> tuple[rollout.Streams, tuple[Any, Array, Array]]:
    """One member's environments after a step, and (action, reward, discount)."""
    act_key, env_key = jax.random.split(jax.random.fold_in(key, t))
    action, carry, _ = agent.act(params, streams.carry, streams.step, act_key)
    env_state, step, reward, discount = env.step(streams.env_state, action, env_key)
    reward, discount = (x.astype(jnp.float32) for x in (reward, discount))
    return rollout.Streams(env_state, step, carry), (action, reward, discount)


def _last(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[-1], tree)


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
