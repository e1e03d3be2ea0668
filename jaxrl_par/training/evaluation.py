"""Evaluation: the same number of episodes of every environment.

The first N episodes to end, of many environments, are short ones: a bias against good
episodes, where these are long. Here every environment contributes equally many.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par import rollout
from jaxrl_par.envs import Environment
from jaxrl_par.envs.base import refuse_others
from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.measured import Metric
from jaxrl_par.types import Agent, Mean, Metrics, Params, PRNGKey

METRICS = {
    "sampled_*": Metric(
        "as without sampled_",
        "of an evaluation whose actions are drawn; return: mean over episodes",
    ),
    "greedy_*": Metric(
        "as without greedy_", "of one that takes the most likely action"
    ),
}

_PIECE = 0.5
"""Seconds after which Python hears signals again."""


class Evaluation(NamedTuple):
    """E episodes of each of B environments, in the order in which they were played."""

    returns: Float[Array | np.ndarray, "E B"]
    """Of an episode that was cut, up to there. An environment that has one plays no
    more: returns of its later episodes are NaN."""
    lengths: Int[Array | np.ndarray, "E B"]
    num_cut: Int[Array | np.ndarray, ""]
    """Episodes that did not end within `max_steps`, or were not played for that."""
    info: Metrics
    """Means of what the environments told of the episodes that ended."""

    @property
    def complete(self) -> bool:
        """Whether all episodes ended; not while it is traced."""
        return not np.any(self.num_cut)


class _Playing(NamedTuple):
    streams: rollout.Streams
    num_rows: Int[Array, ""]
    num_played: Int[Array, " B"]
    num_cut: Int[Array, ""]
    returns: Float[Array, "E B"]
    lengths: Int[Array, "E B"]
    told: Metrics
    """Means over the episodes that ended."""


class _Player(NamedTuple):
    """An evaluation in parts."""

    start: Callable[[Params, PRNGKey], _Playing]
    play: Callable[[Params, PRNGKey, _Playing, Int[Array, ""]], _Playing]
    """Up to so many rows since the start."""


def evaluator(
    agent: Agent, env: Environment, episodes_per_env: int, max_steps: int | None = None
) -> Callable[[Params, PRNGKey], Evaluation]:
    """A pure function, to be jitted, or vmapped over a population.

    Actions are sampled; `agent._replace(act=agent.greedy)` takes the mode.

    Args:
      env: its own environments, not those that train.
      max_steps: bound of an episode, by default that of `env`.

    Raises:
      ValueError: a count is below 1; `env` has no bound, or no statistics; the agent
        was made for other specs; something else is given than is asked for.
    """
    player, max_rows = _player(agent, env, episodes_per_env, max_steps)

    def evaluation(params: Params, key: PRNGKey) -> Evaluation:
        now = player.start(params, key)
        return _result(player.play(params, key, now, jnp.int32(max_rows)))

    return evaluation


def in_pieces(
    agent: Agent, env: Environment, episodes_per_env: int, max_steps: int | None = None
) -> Callable[[Params, PRNGKey], Evaluation]:
    """As `jax.jit(evaluator(...))`, in calls of half a second: in one that takes hours,
    Python would hear no signal."""
    player, max_rows = _player(agent, env, episodes_per_env, max_steps)
    start, play = jax.jit(player.start), jax.jit(player.play)

    def evaluation(params: Params, key: PRNGKey) -> Evaluation:
        now, num_rows, length = start(params, key), 0, 64
        play(params, key, now, np.int32(0))  # compiled before a clock starts
        while num_rows < max_rows and np.any(now.num_played < episodes_per_env):
            num_rows = min(num_rows + length, max_rows)
            started = time.monotonic()
            now = jax.block_until_ready(play(params, key, now, np.int32(num_rows)))
            seconds = time.monotonic() - started
            if seconds < _PIECE / 2:
                length *= 2
            elif seconds > _PIECE:
                length = max(1, length // 2)
        return _result(jax.device_get(now))

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
    result = in_pieces(agent, env, episodes_per_env, max_steps)(params, key)
    if not result.complete:
        raise ValueError(
            f"episodes of {env.name} take more than the {max_steps} steps that"
            " max_steps allows"
        )
    return result


def bound_of(name: str, known: int | None, max_steps: int | None) -> int:
    """Steps after which an episode is cut.

    Args:
      known: the environment's own limit.

    Raises:
      ValueError: neither is there.
    """
    refuse(max_steps=max_steps)
    if max_steps is not None:
        return max_steps
    if known is None:
        raise RefusedError(
            f"{name} has no time limit, so episodes may never end: evaluation needs"
            " max_steps"
        )
    return known


def _player(
    agent: Agent, env: Environment, episodes_per_env: int, max_steps: int | None
) -> tuple[_Player, int]:
    """With the most rows that it can have."""
    refuse(episodes_per_env=episodes_per_env)
    refuse_others(env)
    rollout.refuse_other_specs(agent, env)
    bound = bound_of(env.name, env.max_episode_steps, max_steps)
    statistics = env.episode
    if statistics is None:
        raise ValueError(
            f"{env.name} keeps no episode statistics: wrap it in"
            " envs.wrappers.episode_statistics"
        )
    shape, columns = (episodes_per_env, env.num_envs), np.arange(env.num_envs)

    def step(params: Params, root: PRNGKey, state: _Playing) -> _Playing:
        step_key = jax.random.fold_in(root, state.num_rows)
        act_key, env_key = jax.random.split(step_key)
        streams = state.streams
        action, carry, _ = agent.act(params, streams.carry, streams.step, act_key)
        env_state, step, _, _ = env.step(streams.env_state, action, env_key)
        episode = statistics(env_state)
        # A staggered first episode was cut, and is no part of what is played.
        counts = episode.ended(state.num_played < episodes_per_env)
        cut = counts & ~step.last & (episode.length >= bound)
        # Row E does not exist, so what is dropped is all but newly played episodes.
        played = counts & (step.last | cut)
        row = jnp.where(played, state.num_played, episodes_per_env)
        left = jnp.where(cut, episodes_per_env - state.num_played, 0)
        return _Playing(
            rollout.Streams(env_state, step, carry),
            state.num_rows + 1,
            state.num_played + jnp.where(cut, left, played),
            state.num_cut + left.sum(),
            state.returns.at[row, columns].set(episode.return_, mode="drop"),
            state.lengths.at[row, columns].set(episode.length, mode="drop"),
            _add(state.told, episode.told, counts & step.last),
        )

    def start(params: Params, key: PRNGKey) -> _Playing:
        start_key, _ = jax.random.split(key)
        streams = rollout.start(agent, env, start_key)
        zeros, returns = jnp.zeros(shape, jnp.int32), jnp.full(shape, jnp.nan)
        zero = jnp.int32(0)
        told = rollout.none_ended(env, streams.env_state).told
        return _Playing(streams, zero, zeros[0], zero, returns, zeros, told)

    def play(params: Params, key: PRNGKey, state: _Playing, until: Array) -> _Playing:
        def goes_on(state: _Playing) -> Bool[Array, ""]:
            missing = jnp.any(state.num_played < episodes_per_env)
            return missing & (state.num_rows < until)

        root = jax.random.split(key)[1]
        return jax.lax.while_loop(
            goes_on, partial(step, agent.settle(params), root), state
        )

    # One more row for each episode: its final observation, from which no step is made.
    max_rows = episodes_per_env * (bound + 1) + (env.stagger and env.stagger + 1)
    return _Player(start, play), max_rows


def _result(state: _Playing) -> Evaluation:
    left = state.returns.shape[0] - state.num_played
    num_cut = state.num_cut + left.sum()
    return Evaluation(state.returns, state.lengths, num_cut, state.told)


def _add(means: Any, told: dict[str, Array], ended: Bool[Array, " B"]) -> Metrics:
    """The means, with what was told of some more episodes."""
    count = jnp.sum(ended, dtype=jnp.float32)
    sums = {name: jnp.sum(jnp.where(ended, x, 0.0)) for name, x in told.items()}
    more = {name: Mean(total, count) for name, total in sums.items()}
    return jax.tree.map(jnp.add, means, more)


def results(result: Evaluation) -> dict[str, float]:
    """Means over all episodes that were played, and how many were cut if any was."""
    found = {"return": float(np.nanmean(result.returns))}
    if not result.complete:
        found["cut"] = float(result.num_cut)
    means: dict[str, Any] = {**result.info}
    told = {n: float(x.total / x.count) for n, x in means.items() if x.count}
    return found | told
