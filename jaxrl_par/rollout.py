"""Acting in environments: from parameters to trajectories."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from jaxrl_par import compatible
from jaxrl_par.envs import Environment, Episode
from jaxrl_par.envs.base import refuse_staggered
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.errors import lacking, refuse_any
from jaxrl_par.masks import allowed, masks, none_allowed
from jaxrl_par.types import (
    Agent,
    Carry,
    EnvState,
    Mean,
    Metrics,
    Params,
    PRNGKey,
    TimeStep,
    Trajectory,
)

_NOTHING: Metrics = {}


class Streams(NamedTuple):
    """B environments in progress, leaves [B, ...]."""

    env_state: EnvState
    step: TimeStep
    carry: Carry


class Episodes(NamedTuple):
    """Means over the episodes that ended."""

    return_: Mean
    length: Mean
    stuck: Mean | tuple[()] = ()
    """Over all rows that are no `last`: whether a mask allows no action there, which is
    the environment's fault. () of environments without masks."""
    told: Metrics = _NOTHING
    """What the environment tells of them, by metric: see `envs.Episode`."""


def refuse_other_specs(agent: Agent, env: Environment | HostEnvironment) -> None:
    """Accepts an agent that was made for such observations and actions, or for any.

    Bounds of observations may differ.

    Raises:
      RefusedError: it was made for others, or is no agent.
    """
    refuse_any(lacking("an Agent, as algorithms make", "act", "specs", agent=agent))
    remedy = "Make its network from the specs of this environment"
    compatible.refuse_others(
        agent.specs, env.specs, "the agent", f"{env.name} has", remedy
    )


def start(
    agent: Agent,
    env: Environment,
    key: PRNGKey,
    index: Int[Array, ""] | int = 0,
    num_parts: int = 1,
) -> Streams:
    """Resets environments and the agent's memory: part `index` of `num_parts` equal.

    Raises:
      RefusedError: as `refuse_other_specs`.
    """
    refuse_other_specs(agent, env)
    carry = initial_carry(agent, env.num_envs, index, num_parts)
    return Streams(*env.reset(key), carry)


def initial_carry(
    agent: Agent, num_envs: int, index: Int[Array, ""] | int = 0, num_parts: int = 1
) -> Carry:
    """The share of one part in the memory of all environments.

    The initial carry may differ between environments (exploration ladders live in it),
    so it is made for all parts together and sliced.
    """
    carry = agent.initial_carry(num_parts * num_envs)
    if num_parts == 1:
        return carry
    return jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, index * num_envs, num_envs), carry
    )


def shapes(agent: Agent, params: Params, step: TimeStep, length: int) -> Trajectory:
    """Shapes and dtypes of what so many steps give, from one step [B]."""

    def over_time(tree: PyTree, length: int) -> PyTree:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (length, *x.shape)), tree)

    def trajectory(params: Params, step: TimeStep) -> Trajectory:
        carry = agent.initial_carry(step.first.shape[0])
        action, after, extras = agent.act(params, carry, step, jax.random.key(0))
        action, extras = over_time((action, extras), length)
        number = over_time(jnp.zeros(step.first.shape, jnp.float32), length)
        steps = over_time(step, length + 1)
        acted = Trajectory(steps, action, number, number, extras, carry)
        return acted._replace(extras=agent.complete(params, after, acted))

    return jax.eval_shape(trajectory, params, step)


def unroll(
    agent: Agent,
    env: Environment,
    params: Params,
    streams: Streams,
    key: PRNGKey,
    length: int,
) -> tuple[Streams, Trajectory, Episodes]:
    """Takes `length` actions in every environment.

    Raises:
      ValueError: `length` is below 1, or `env` keeps no statistics of its episodes.
    """
    after, trajectory, episode = _unrolled(agent, env, params, streams, key, length)
    ended = _ended(episode, trajectory.steps.last[1:])
    return after, trajectory, ended._replace(stuck=_stuck(trajectory.rows, env))


def _unrolled(
    agent: Agent,
    env: Environment,
    params: Params,
    streams: Streams,
    key: PRNGKey,
    length: int,
) -> tuple[Streams, Trajectory, Episode]:
    """As `unroll`, with the episodes in progress after each row, [T, B]."""
    if length < 1:
        raise ValueError(f"an unroll takes at least 1 step, got {length}")
    if env.episode is None:
        raise ValueError(
            f"{env.name} keeps no episode statistics: wrap it in"
            " envs.wrappers.episode_statistics"
        )
    statistics = env.episode

    def advance(streams, key):
        act_key, env_key = jax.random.split(key)
        action, carry, extras = agent.act(params, streams.carry, streams.step, act_key)
        env_state, step, reward, discount = env.step(streams.env_state, action, env_key)
        episode = statistics(env_state)
        reward, discount = (x.astype(jnp.float32) for x in (reward, discount))
        row = Trajectory(streams.step, action, reward, discount, extras, ())
        return Streams(env_state, step, carry), (row, episode)

    keys = jax.random.split(key, length)
    after, (rows, episode) = jax.lax.scan(advance, streams, keys)
    steps = jax.tree.map(
        lambda x, final: jnp.concatenate([x, final[None]]), rows.steps, after.step
    )
    trajectory = rows._replace(steps=steps, carry=streams.carry)
    extras = agent.complete(params, after.carry, trajectory)
    return after, trajectory._replace(extras=extras), episode


def whole_episodes(
    agent: Agent,
    env: Environment,
    params: Params,
    key: PRNGKey,
    length: int,
    index: Int[Array, ""] | int = 0,
    num_parts: int = 1,
) -> tuple[Trajectory, Episodes]:
    """One episode of every environment, from its start; all rows after it are `last`.

    Fixed numbers of episodes, not of steps: otherwise short episodes, of which more end
    in the same time, would weigh more in a Monte Carlo estimate.

    Args:
      length: longest episode. One that is longer is cut there, as by a time limit.
      index, num_parts: as for `start`.

    Raises:
      RefusedError: first episodes of `env` are staggered.
    """
    refuse_staggered(env)
    start_key, act_key = jax.random.split(key)
    streams = start(agent, env, start_key, index, num_parts)
    _, trajectory, episode = _unrolled(agent, env, params, streams, act_key, length)
    stuck = _stuck(trajectory.rows, env)
    steps = trajectory.steps
    over = jnp.cumsum(steps.last, axis=0) > 0
    running = ~over[:-1]
    ended = running & over[1:]
    reward = jnp.where(running, trajectory.reward, 0.0)
    trajectory = trajectory._replace(
        steps=steps._replace(last=over, first=steps.first & ~over),
        reward=reward,
        discount=jnp.where(running, trajectory.discount, 0.0),
    )
    count, lengths = jnp.float32(env.num_envs), jnp.sum(running, dtype=jnp.float32)
    told = _ended(episode, ended).told
    means = Mean(jnp.sum(reward), count), Mean(lengths, count)
    return trajectory, Episodes(*means, stuck, told)


def none_ended(env: Environment, env_state: EnvState) -> Episodes:
    """What `unroll` tells of no rows.

    Args:
      env_state: any, for its shapes.
    """
    nothing = Mean(jnp.float32(0), jnp.float32(0))
    stuck = nothing if masks(env.observation_spec) else ()
    told = jax.eval_shape(env.episode, env_state).told if env.episode else {}
    return Episodes(nothing, nothing, stuck, dict.fromkeys(told, nothing))


def _stuck(rows: TimeStep, env: Environment) -> Mean | tuple[()]:
    mask = allowed(rows.obs)
    if mask is None:
        return ()
    kept = (~rows.last).astype(jnp.float32)
    none = none_allowed(env.action_spec, mask)
    return Mean(jnp.sum(kept * none), jnp.sum(kept))


def _ended(episode: Episode, last: Bool[Array, "T B"]) -> Episodes:
    last = episode.ended(last)
    count = jnp.sum(last, dtype=jnp.float32)

    def mean(x: Array) -> Mean:
        return Mean(jnp.sum(jnp.where(last, x, 0).astype(jnp.float32)), count)

    told: Metrics = {name: mean(x) for name, x in episode.told.items()}
    return Episodes(mean(episode.return_), mean(episode.length), told=told)
