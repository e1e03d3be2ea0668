"""Evaluation: the same number of episodes of every environment.

The first N episodes to end, of many environments, are short ones: a bias against good
episodes, where these are long. Here every environment contributes equally many.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par import rollout
from jaxrl_par.envs import Environment
from jaxrl_par.errors import refuse
from jaxrl_par.types import Agent, Params, PRNGKey


class Evaluation(NamedTuple):
    """E episodes of each of B environments, in the order in which they were played."""

    returns: Float[Array, "E B"]
    lengths: Int[Array, "E B"]
    complete: Bool[Array, ""]
    """True if all episodes ended within `max_steps`; returns of the others are NaN."""


class _Playing(NamedTuple):
    streams: rollout.Streams
    num_rows: Int[Array, ""]
    num_ended: Int[Array, " B"]
    returns: Float[Array, "E B"]
    lengths: Int[Array, "E B"]


def evaluator(
    agent: Agent, env: Environment, episodes_per_env: int, max_steps: int | None = None
) -> Callable[[Params, PRNGKey], Evaluation]:
    """A pure function, to be jitted, or vmapped over a population.

    Actions are sampled; `agent._replace(act=agent.greedy)` takes the mode.

    Args:
      env: its own environments, not those that train.
      max_steps: bound of an episode, by default that of `env`.

    Raises:
      ValueError: `episodes_per_env` is below 1; `env` has no bound, or no statistics.
    """
    refuse(episodes_per_env=episodes_per_env)
    bound = env.max_episode_steps if max_steps is None else max_steps
    statistics = env.episode
    if bound is None:
        raise ValueError(f"{env.name} has no time limit: evaluation needs max_steps")
    if statistics is None:
        raise ValueError(
            f"{env.name} keeps no episode statistics: wrap it in"
            " envs.wrappers.episode_statistics"
        )
    # One more row for each episode: its final observation, from which no step is made.
    max_rows = episodes_per_env * (bound + 1)
    shape, columns = (episodes_per_env, env.num_envs), np.arange(env.num_envs)

    def playing(state: _Playing) -> Bool[Array, ""]:
        missing = jnp.any(state.num_ended < episodes_per_env)
        return missing & (state.num_rows < max_rows)

    def play(params: Params, root: PRNGKey, state: _Playing) -> _Playing:
        step_key = jax.random.fold_in(root, state.num_rows)
        act_key, env_key = jax.random.split(step_key)
        streams = state.streams
        action, carry, _ = agent.act(params, streams.carry, streams.step, act_key)
        env_state, step, _, _ = env.step(streams.env_state, action, env_key)
        episode = statistics(env_state)
        # Row E does not exist, so what is dropped is all but newly ended episodes.
        counted = step.last & (state.num_ended < episodes_per_env)
        row = jnp.where(counted, state.num_ended, episodes_per_env)
        return _Playing(
            rollout.Streams(env_state, step, carry),
            state.num_rows + 1,
            state.num_ended + counted,
            state.returns.at[row, columns].set(episode.return_, mode="drop"),
            state.lengths.at[row, columns].set(episode.length, mode="drop"),
        )

    def evaluation(params: Params, key: PRNGKey) -> Evaluation:
        start_key, root = jax.random.split(key)
        streams = rollout.start(agent, env, start_key)
        zeros, returns = jnp.zeros(shape, jnp.int32), jnp.full(shape, jnp.nan)
        state = _Playing(streams, jnp.int32(0), zeros[0], returns, zeros)
        state = jax.lax.while_loop(playing, partial(play, params, root), state)
        complete = jnp.all(state.num_ended == episodes_per_env)
        return Evaluation(state.returns, state.lengths, complete)

    return evaluation


def evaluate(
    agent: Agent,
    env: Environment,
    params: Params,
    key: PRNGKey,
    episodes_per_env: int,
    max_steps: int | None = None,
) -> Evaluation:
    """Plays `episodes_per_env` episodes of every environment, now. See `evaluator`.

    Raises:
      ValueError: as `evaluator`, or an episode did not end within `max_steps`.
    """
    result = jax.jit(evaluator(agent, env, episodes_per_env, max_steps))(params, key)
    if not result.complete:
        raise ValueError(
            f"episodes of {env.name} take more than the {max_steps} steps that"
            " max_steps allows"
        )
    return result
