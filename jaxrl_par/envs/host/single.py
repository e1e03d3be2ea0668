"""Environments with Gymnasium's single interface, stepped one after the other.

Every episode has a seed of its own, which depends on (seed, environment, episode) and
nothing else. So a simulator that is deterministic can be brought back by its actions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxrl_par.envs.host import rows, spaces
from jaxrl_par.envs.host.base import HostEnvironment, HostRow
from jaxrl_par.types import TimeStep

_LONGEST = 10_000
"""Environment steps of an episode that can be kept, so that snapshots stay small."""


class Replay(NamedTuple):
    """A snapshot: what brings simulators back. Their seeds follow from `episode`."""

    episode: np.ndarray
    """[B], episodes before the one in progress."""
    length: np.ndarray
    """[B], environment steps so far in the episode."""
    actions: np.ndarray
    """[B, max_episode_steps, ...], 0 from `length` on."""


def from_callable(
    make_env: Callable[[], Any], num_envs: int, seed: int, *, name: str | None = None
) -> HostEnvironment:
    """Environments that `make_env` makes, each with Gymnasium's interface.

    They need `reset(seed=...)`, `step`, `observation_space`, `action_space` and
    `close`; they need not derive from `gymnasium.Env`. If `spec.max_episode_steps`
    limits episodes to 10 000 steps or fewer, snapshots are possible; they come back to
    where they were if `reset` with a seed leaves nothing of earlier episodes behind.

    Raises:
      ValueError: the environments differ in their spaces, or a space is not supported,
        `num_envs` is below 1 or `seed` is negative.
    """
    rows.check_arguments(num_envs, seed)
    envs = []
    try:
        for _ in range(num_envs):
            envs.append(make_env())
        return _SingleHost(envs, seed, name)
    except BaseException:
        for env in envs:
            env.close()
        raise


class _SingleHost(HostEnvironment):
    def __init__(self, envs: list[Any], seed: int, name: str | None):
        spec = getattr(envs[0], "spec", None)
        self.num_envs = len(envs)
        self.name = name or getattr(spec, "id", None) or type(envs[0]).__name__
        self.max_episode_steps = getattr(spec, "max_episode_steps", None)
        self._observation_space = envs[0].observation_space
        self._action_space = envs[0].action_space
        for index, env in enumerate(envs):
            for kind in ("observation_space", "action_space"):
                if getattr(env, kind) != getattr(envs[0], kind):
                    raise ValueError(
                        f"the {kind} of environment {index} of {self.name} differs from"
                        f" that of environment 0: {getattr(env, kind)}"
                    )
        self._specs = spaces.observation_spec(self._observation_space, self.name)
        self.observation_spec = self._specs
        self.action_spec = spaces.action_spec(self._action_space, self.name)
        self._envs = envs
        self._seed = seed
        self._episode = [0] * self.num_envs
        self._length = [0] * self.num_envs
        self._last = np.zeros(self.num_envs, bool)
        self._actions = None
        if self.max_episode_steps is not None and self.max_episode_steps <= _LONGEST:
            shape = (self.num_envs, self.max_episode_steps, *self.action_spec.shape)
            self._actions = np.zeros(shape, self.action_spec.dtype)

    def reset(self) -> TimeStep:
        """Starts every environment anew, with its first episode."""
        observations = [self._start(i, 0) for i in range(self.num_envs)]
        self._last = np.zeros(self.num_envs, bool)
        return rows.first_step(self._stack(observations), self.num_envs)

    def step(self, action: Any) -> HostRow:
        """Acts in every environment."""
        first = self._last
        actions = spaces.simulator_action(
            self._action_space, self.action_spec, action, self.num_envs
        )
        self._record(action, first)
        observations: list[Any] = [None] * self.num_envs
        reward = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, bool)
        truncated = np.zeros(self.num_envs, bool)
        for i in range(self.num_envs):
            if first[i]:
                observations[i] = self._start(i, self._episode[i] + 1)
            else:
                observations[i], reward[i], terminated[i], truncated[i] = self._act(
                    i, actions[i]
                )
        result = rows.row(
            self._stack(observations),
            first=first,
            terminated=terminated,
            truncated=truncated,
            reward=reward,
        )
        self._last = np.asarray(result[0].last)
        return result

    def close(self) -> None:
        """Closes every environment."""
        envs, self._envs = self._envs, []
        for env in envs:
            env.close()

    def snapshot(self) -> Replay | None:
        """The episodes in progress, None if their length has no limit to plan for."""
        if self._actions is None:
            return None
        length = np.array(self._length, np.int32)
        kept = np.arange(self._actions.shape[1]) < length[:, None]
        kept = kept.reshape(*kept.shape, *[1] * (self._actions.ndim - 2))
        actions = np.where(kept, self._actions, np.zeros_like(self._actions))
        return Replay(np.array(self._episode, np.uint32), length, actions)

    def restore(self, snapshot: Any) -> TimeStep:
        """Repeats the episodes in progress, from their seeds and actions.

        Raises:
          RuntimeError: an episode ended elsewhere than when the snapshot was taken.
        """
        if self._actions is None:
            return super().restore(snapshot)
        self._actions = np.array(snapshot.actions, self.action_spec.dtype)
        observations: list[Any] = [None] * self.num_envs
        for i in range(self.num_envs):
            observations[i], self._last[i] = self._repeat(
                i, int(snapshot.episode[i]), int(snapshot.length[i])
            )
        first = np.asarray(snapshot.length) == 0
        return rows.time_step(self._stack(observations), first, self._last.copy())

    def _repeat(self, i: int, episode: int, length: int) -> tuple[Any, bool]:
        """(obs, last) of environment `i` after `length` recorded actions."""
        assert self._actions is not None
        obs, last = self._start(i, episode), False
        actions = spaces.simulator_action(
            self._action_space, self.action_spec, self._actions[i, :length], length
        )
        for action in actions:
            if last:
                raise RuntimeError(
                    f"{self.name} is not deterministic: episode {episode} of"
                    f" environment {i} had {length} steps and now {self._length[i]}"
                )
            obs, _, terminated, truncated = self._act(i, action)
            last = bool(terminated or truncated)
        return obs, last

    def _record(self, action: Any, first: np.ndarray) -> None:
        if self._actions is None:
            return
        running = np.flatnonzero(~first)
        length = np.array(self._length)[running]
        if np.any(length >= self._actions.shape[1]):
            raise RuntimeError(
                f"an episode of {self.name} is longer than the"
                f" {self.max_episode_steps} steps of its spec"
            )
        self._actions[running, length] = np.asarray(action)[running]

    def _start(self, i: int, episode: int) -> Any:
        self._episode[i], self._length[i] = episode, 0
        seed = rows.episode_seed(self._seed, i, episode)
        try:
            return self._open()[i].reset(seed=seed)[0]
        except Exception as error:
            error.add_note(self._place(i))
            raise

    def _act(self, i: int, action: Any) -> tuple[Any, Any, Any, Any]:
        self._length[i] += 1
        try:
            return self._open()[i].step(action)[:4]
        except Exception as error:
            error.add_note(self._place(i))
            raise

    def _open(self) -> list[Any]:
        if not self._envs:
            raise RuntimeError(f"{self.name} is closed")
        return self._envs

    def _place(self, i: int) -> str:
        return (
            f"in environment {i} of {self.name}, episode {self._episode[i]}, step"
            f" {self._length[i]}"
        )

    def _stack(self, observations: list[Any]) -> Any:
        return spaces.stack(self._observation_space, self._specs, observations)
