"""Environments with Gymnasium's single interface, stepped one after the other.

Every episode has a seed of its own, which depends on (seed, environment, episode) and
nothing else. So a simulator that is deterministic can be brought back by its actions.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_par.envs.host import rows, spaces
from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.envs.host.info import EpisodeInfo
from jaxrl_par.types import Obs, TimeStep

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
    make_env: Callable[[], Any],
    num_envs: int,
    seed: int,
    *,
    name: str | None = None,
    info_metrics: Sequence[str] = (),
) -> HostEnvironment:
    """Environments that `make_env` makes, each with Gymnasium's interface.

    They need `reset(seed=...)`, `step`, `observation_space`, `action_space` and
    `close`; they need not derive from `gymnasium.Env`. If `spec.max_episode_steps`
    limits episodes to 10 000 steps or fewer, snapshots are possible; they come back to
    where they were if `reset` with a seed leaves nothing of earlier episodes behind.

    Args:
      info_metrics: entries of `info` to log besides success; see `envs.host.info`.

    Raises:
      ValueError: the environments differ in their spaces, or a space is not supported,
        `num_envs` is below 1 or `seed` is negative.
    """
    rows.check_arguments(num_envs, seed)
    envs = []
    try:
        for _ in range(num_envs):
            envs.append(make_env())
        host = _SingleHost(envs, seed, name)
    except BaseException:
        for env in envs:
            env.close()
        raise
    host.info = EpisodeInfo(info_metrics, host.name)
    return host


class _SingleHost(rows.GymnasiumHost):
    def __init__(self, envs: list[Any], seed: int, name: str | None):
        spec = getattr(envs[0], "spec", None)
        name = str(name or getattr(spec, "id", None) or type(envs[0]).__name__)
        kinds = ("observation_space", "action_space")
        both = [getattr(envs[0], kind) for kind in kinds]
        for index, env in enumerate(envs):
            for kind, space in zip(kinds, both, strict=True):
                if getattr(env, kind) != space:
                    raise ValueError(
                        f"the {kind} of environment {index} of {name} differs from"
                        f" that of environment 0: {getattr(env, kind)}"
                    )
        limit = getattr(spec, "max_episode_steps", None)
        super().__init__(len(envs), both[0], both[1], name, limit)
        self._envs, self._seed = envs, seed
        self._episode, self._length = [0] * self.num_envs, [0] * self.num_envs
        self._actions = None
        if self.max_episode_steps is not None and self.max_episode_steps <= _LONGEST:
            shape = (self.num_envs, self.max_episode_steps, *self.action_spec.shape)
            self._actions = np.zeros(shape, self.action_spec.dtype)

    def _begin(self) -> Obs:
        return self._stack([self._start(i, 0) for i in range(self.num_envs)])

    def _advance(self, action: Any, first: np.ndarray) -> tuple[Obs, Any, Any, Any]:
        actions = self._simulator_action(action, self.num_envs)
        self._record(action, first)
        observations: list[Any] = [None] * self.num_envs
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), bool)
        for i in range(self.num_envs):
            if first[i]:
                observations[i] = self._start(i, self._episode[i] + 1)
            else:
                result = self._act(i, actions[i])
                observations[i], reward[i], terminated[i], truncated[i], info = result
                if terminated[i] or truncated[i]:
                    self.info.add(info)
        return self._stack(observations), reward, terminated, truncated

    def close(self) -> None:
        envs, self._envs = self._envs, []
        for env in envs:
            env.close()

    def snapshot(self) -> Replay | None:
        """The episodes in progress, None if their length has no limit to plan for."""
        if self._actions is None:
            return None
        length = np.array(self._length, np.int32)
        actions = self._actions.copy()
        actions[np.arange(actions.shape[1]) >= length[:, None]] = 0
        return Replay(np.array(self._episode, np.uint32), length, actions)

    def restore(self, snapshot: Any) -> TimeStep:
        """Repeats the episodes in progress, from their seeds and actions.

        Raises:
          RuntimeError: an episode ended elsewhere than when the snapshot was taken.
        """
        if self._actions is None:
            return super().restore(snapshot)
        self._actions = np.array(snapshot.actions, self.action_spec.dtype)
        counts, observations = (snapshot.episode, snapshot.length), []
        for i, (episode, length) in enumerate(zip(*counts, strict=True)):
            actions = self._actions[i, : int(length)]
            obs, self._last[i] = self._repeat(i, int(episode), actions)
            observations.append(obs)
        first = np.asarray(snapshot.length) == 0
        return rows.time_step(self._stack(observations), first, self._last.copy())

    def _repeat(self, i: int, episode: int, actions: np.ndarray) -> tuple[Any, bool]:
        """(obs, last) of environment `i` after the recorded actions."""
        obs, last = self._start(i, episode), False
        for action in self._simulator_action(actions, len(actions)):
            if last:
                raise RuntimeError(
                    f"{self.name} is not deterministic: episode {episode} of"
                    f" environment {i} had {len(actions)} steps and now"
                    f" {self._length[i]}"
                )
            obs, _, terminated, truncated, _ = self._act(i, action)
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
        return self._call(i, "reset", seed=seed)[0]

    def _act(self, i: int, action: Any) -> tuple[Any, Any, Any, Any, Any]:
        self._length[i] += 1
        return self._call(i, "step", action)

    def _call(self, i: int, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            if not self._envs:
                raise RuntimeError(f"{self.name} is closed")
            return getattr(self._envs[i], method)(*args, **kwargs)
        except Exception as error:
            error.add_note(
                f"in environment {i} of {self.name}, episode {self._episode[i]}, step"
                f" {self._length[i]}"
            )
            raise

    def _stack(self, observations: list[Any]) -> Any:
        return spaces.stack(self._observation_space, self._specs, observations)
