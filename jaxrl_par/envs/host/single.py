"""Environments with Gymnasium's single interface, stepped one after the other.

Every episode has a seed of its own, which depends on (seed, environment, episode) and
nothing else. So a simulator that is deterministic can be brought back by its actions.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from jaxrl_par import trees
from jaxrl_par.envs.host import rows
from jaxrl_par.envs.host.admission import (
    admitted_flag,
    admitted_results,
    admitted_reward,
    way_out,
)
from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.envs.host.failures import close_all, raise_from
from jaxrl_par.envs.host.sharing import Owners
from jaxrl_par.stream import Obs, TimeStep

_LONGEST = 10_000
"""Environment steps of an episode that can be kept, so that snapshots stay small."""


class Replay(NamedTuple):
    """A snapshot: what brings simulators back. Their seeds follow from `episode`."""

    episode: np.ndarray
    """[B], episodes before the one in progress."""
    length: np.ndarray
    """[B], environment steps so far in the episode."""
    actions: Any
    """Leaves [B, max_episode_steps, ...], 0 from `length` on."""


def from_callable(
    make_env: Callable[[], Any],
    num_envs: int,
    seed: int,
    *,
    name: str | None = None,
    info_metrics: Sequence[str] = (),
    masked: bool = False,
) -> HostEnvironment:
    """Environments that `make_env` makes, each with Gymnasium's interface.

    They need `reset(seed=...)`, `step`, `observation_space`, `action_space` and
    `close`; they need not derive from `gymnasium.Env`. If `spec.max_episode_steps`
    limits episodes to 10 000 steps or fewer, snapshots are possible; they come back to
    where they were if `reset` with a seed leaves nothing of earlier episodes behind.

    Args:
      info_metrics: entries of `info` to log besides success; see `envs.host.info`.
      masked: `info` tells in every reset and step which actions there are, and
        observations are `Masked`; see `envs.host.masking`.

    Raises:
      ValueError: the environments differ in their spaces, are or have within them the
        same object, or a space is not supported, `num_envs` is below 1 or `seed` is
        negative.
    """
    rows.check_arguments(num_envs, seed)
    envs: list[Any] = []
    try:
        owners = Owners("environment", "make_env must make a new one in each call")
        for index in range(num_envs):
            envs.append(make_env())
            owners.claim(index, envs[-1])
        host = _SingleHost(envs, seed, name)
        host.tell(info_metrics, masked)
    except BaseException as error:
        try:
            close_all(_closes({id(env): env for env in envs}.values()))
        except BaseException as second:
            error.add_note(f"then closing failed: {type(second).__name__}: {second}")
        raise_from(error, f"in make of environment {max(len(envs) - 1, 0)}")
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
            shape = (self.num_envs, self.max_episode_steps)
            self._actions = trees.map_leaves(
                lambda x: np.zeros((*shape, *x.shape), x.dtype), self.action_spec
            )

    def _begin(self) -> Obs:
        obs = self._observations.empty(self.num_envs)
        for i in range(self.num_envs):
            self._start(obs, i, 0)
        return self._observations.batch(obs, self._where)

    def _advance(self, action: Any, first: np.ndarray) -> tuple[Obs, Any, Any, Any]:
        actions = self._simulator_action(action, self.num_envs)
        actions = self._sending.of_each(actions, self.num_envs)
        self._record(action, first)
        obs = self._observations.empty(self.num_envs)
        results: list[Any] = [(0.0, False, False, {})] * self.num_envs
        # Copied at once: what the next one returns may be the same memory.
        for i, begins in enumerate(first.tolist()):
            if begins:
                self._start(obs, i, self._episode[i] + 1)
            else:
                results[i] = result = self._act(obs, i, actions[i])
                if result[1] or result[2]:
                    self.info.add(result[3], i)
        batch = self._observations.batch(obs, self._where)
        reward, terminated, truncated, _ = zip(*results, strict=True)
        flags = np.array((terminated, truncated), bool)
        return batch, np.array(reward, np.float64), *flags

    def close(self) -> None:
        envs, self._envs = self._envs, []
        close_all(_closes(envs, f" of {self.name}"))

    def render(self) -> np.ndarray | None:
        """That of Gymnasium's `render_mode` "rgb_array".

        Raises:
          ValueError: it is no picture.
        """
        if not self._envs or getattr(self._envs[0], "render_mode", "") != "rgb_array":
            return None
        picture = self._envs[0].render()
        array = np.asarray(picture)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
            raise ValueError(
                f"render() of {self.name} must give an array [H, W, 3] uint8, got"
                f" {type(picture).__name__} {array.shape} {array.dtype}"
            )
        return array

    def snapshot(self) -> Replay | None:
        """The episodes in progress, None if their length has no limit to plan for."""
        if self._actions is None:
            return None
        length = np.array(self._length, np.int32)
        assert self.max_episode_steps is not None  # or there would be no actions
        later = np.arange(self.max_episode_steps) >= length[:, None]

        def so_far(actions: np.ndarray) -> np.ndarray:
            actions = actions.copy()
            actions[later] = 0
            return actions

        actions = trees.map_leaves(so_far, self._actions)
        return Replay(np.array(self._episode, np.uint32), length, actions)

    def restore(self, snapshot: Any) -> TimeStep:
        """Repeats the episodes in progress, from their seeds and actions.

        Raises:
          RuntimeError: an episode ended elsewhere than when the snapshot was taken.
        """
        if self._actions is None:
            return super().restore(snapshot)
        self._actions = trees.map_leaves(
            lambda spec, x: np.array(x, spec.dtype), self.action_spec, snapshot.actions
        )
        counts = (snapshot.episode, snapshot.length)
        obs = self._observations.empty(self.num_envs)
        for i, (episode, length) in enumerate(zip(*counts, strict=True)):
            actions = trees.map_leaves(
                lambda x, i=i, length=int(length): x[i, :length], self._actions
            )
            self._last[i] = self._repeat(obs, i, int(episode), actions)
        first = np.asarray(snapshot.length) == 0
        batch = self._observations.batch(obs, self._where)
        batch = self._masked(batch, self._last)
        return rows.time_step(batch, first, self._last.copy())

    def _repeat(
        self, obs: list[np.ndarray], i: int, episode: int, actions: Any
    ) -> bool:
        """Whether the episode of environment `i` ends with the recorded actions. What
        it shows then is written."""
        last = False
        self._start(obs, i, episode)
        number = len(trees.leaves(actions)[0])
        sent = self._simulator_action(actions, number)
        for action in self._sending.of_each(sent, number):
            if last:
                raise RuntimeError(
                    f"{self.name} is not deterministic: episode {episode} of"
                    f" environment {i} had {number} steps and now"
                    f" {self._length[i]}"
                )
            _, terminated, truncated, _ = self._act(obs, i, action)
            last = bool(terminated or truncated)
        return last

    def _record(self, action: Any, first: np.ndarray) -> None:
        if self._actions is None:
            return
        running = np.flatnonzero(~first)
        length = np.array(self._length)[running]
        limit = self.max_episode_steps
        if np.count_nonzero(length >= limit):
            raise RuntimeError(
                f"an episode of {self.name} is longer than the"
                f" {self.max_episode_steps} steps of its spec"
            )

        def write(kept: np.ndarray, x: Any) -> None:
            kept[running, length] = np.asarray(x)[running]

        trees.map_leaves(write, self._actions, action)

    def _start(self, obs: list[np.ndarray], i: int, episode: int) -> None:
        """Begins an episode, and writes what it shows."""
        self._episode[i], self._length[i] = episode, 0
        seed = rows.episode_seed(self._seed, i, episode)
        try:
            results = self._envs[i].reset(seed=seed)
        except BaseException as error:
            self._fail(i, "reset", error)
        shown, info = admitted_results(results, "reset", self._where, i)
        self._observations.write(obs, i, shown, i, self._where)
        if self._masks is not None:
            self._masks.read(info, i, self._where)

    def _act(
        self, obs: list[np.ndarray], i: int, action: Any
    ) -> tuple[Any, Any, Any, Any]:
        """(reward, terminated, truncated, info); what is shown is written."""
        self._length[i] += 1
        where = self._where
        try:
            results = self._envs[i].step(action)
        except BaseException as error:
            self._fail(i, "step", error)
        # Most are right, and cost no call.
        is_tuple = type(results) is tuple and len(results) == 5
        if not (is_tuple and type(results[4]) is dict):
            results = admitted_results(results, "step", where, i)
        shown, reward, terminated, truncated, info = results
        self._observations.write(obs, i, shown, i, where)
        if self._masks is not None:
            self._masks.read(info, i, where)
        small = type(reward) is int and -1 <= reward <= 1
        if type(reward) is not float and not small:
            reward = admitted_reward(reward, i, where)
        if type(terminated) is not bool:
            terminated = admitted_flag("terminated", terminated, i, where)
        if type(truncated) is not bool:
            truncated = admitted_flag("truncated", truncated, i, where)
        return reward, terminated, truncated, info

    def _fail(self, i: int, method: str, error: BaseException) -> NoReturn:
        """Raises what an environment raised, with its place."""
        if not self._envs and isinstance(error, IndexError):
            error = RuntimeError(f"{self.name} is closed")
        raise_from(error, f"in {self._where(i)}{way_out(error, method)}")

    def _where(self, i: int | None) -> str:
        if i is None:
            return f"the environments of {self.name}"
        return (
            f"environment {i} of {self.name}, episode {self._episode[i]}, step"
            f" {self._length[i]}"
        )


def _closes(envs: Iterable[Any], of: str = "") -> dict[str, Callable[[], object]]:
    return {f"environment {i}{of}": env.close for i, env in enumerate(envs)}
