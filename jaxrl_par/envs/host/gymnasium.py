"""Gymnasium's vector environments as streams, whichever way they reset by themselves.

NEXT_STEP is our stream: the step after the end of an episode ignores its action and
shows the first observation of the next one.

SAME_STEP and DISABLED know no such step, and a vector environment steps all of its
environments or none. So one that ended takes a step that is not shown, with the action
that the stream ignores, and is reset after it, through `options={"reset_mask": ...}`;
what that reset shows is the first observation of the stream. Nothing that is shown is
lost or untrue; the price is one more step and reset an episode (two more resets where
autoreset is disabled), and simulators that count their resets count these. Where all
environments end together, all are only reset. An environment may refuse the unseen
action if not all actions are allowed in all states: make it in NEXT_STEP. What a step
returned is copied before a reset, which may write into the same memory.

Vector environments cast what their environments return, such as float64 to the float32
that is declared, or the text "False" to true. Those of `SyncVectorEnv`, and of the
processes that `make` starts, are looked at before; behind an `AsyncVectorEnv` that
somebody else has made, nobody sees it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxrl_par import trees
from jaxrl_par.envs.host import rows
from jaxrl_par.envs.host.admission import (
    BadRowError,
    admitted_flags,
    admitted_results,
    admitted_rewards,
    shown,
)
from jaxrl_par.envs.host.apart import Admitted
from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.envs.host.failures import close_all, raise_from
from jaxrl_par.envs.host.processes import end, exits
from jaxrl_par.envs.host.sharing import Owners
from jaxrl_par.stream import Obs


def from_vector(
    vector_env: Any,
    seed: int,
    *,
    name: str | None = None,
    max_episode_steps: int | None = None,
    info_metrics: Sequence[str] = (),
    masked: bool = False,
) -> HostEnvironment:
    """A Gymnasium vector environment, in any of the three autoreset modes.

    It belongs to the adapter from now on, and is closed with it. Environments of
    `SyncVectorEnv`, `AsyncVectorEnv` and ALE's `AtariVectorEnv` get a seed each; others
    one for all. With NEXT_STEP they go on drawing from it. In the other modes each
    episode gets a seed of its own, except for classes other than these three, whose
    seeds may not be combined with a mask.

    Args:
      name, max_episode_steps: by default those of its `spec`.
      info_metrics: entries of `info` to log besides success; see `envs.host.info`.
      masked: `info` tells in every reset and step which actions there are, and
        observations are `Masked`; see `envs.host.masking`. Only with NEXT_STEP.

    Raises:
      ValueError: no autoreset mode is declared, `seed` is negative, a space is not
        supported, or two of its environments are or have within them the same object.
    """
    rows.check_arguments(vector_env.num_envs, seed)
    mode = _autoreset_mode(vector_env)
    inner = vector_env.unwrapped
    owners = Owners("environment", "each needs one of its own")
    for index, env in enumerate(_environments(inner)):
        owners.claim(index, env)
    spec = inner.spec or getattr(getattr(inner, "envs", [None])[0], "spec", None)
    if max_episode_steps is None and spec is not None:
        max_episode_steps = spec.max_episode_steps
    if name is None:
        name = type(inner).__name__ if spec is None else str(spec.id)
    if masked and mode != "NEXT_STEP":
        raise ValueError(
            f"masks of actions are read from {name} with autoreset_mode NEXT_STEP, and"
            f" it has {mode}, which shows those of two steps in one"
        )
    host = VectorHost(vector_env, mode, seed, name, max_episode_steps)
    host.tell(info_metrics, masked)
    if envs := _environments(inner):
        inner.envs = [Admitted(env, i, host.name) for i, env in enumerate(envs)]
    return host


class VectorHost(rows.GymnasiumHost):
    """The adapter; see the module."""

    def __init__(
        self,
        vector_env: Any,
        mode: str,
        seed: int | None,
        name: str,
        max_episode_steps: int | None,
    ):
        both = vector_env.single_observation_space, vector_env.single_action_space
        super().__init__(int(vector_env.num_envs), *both, name, max_episode_steps)
        self._vector_env, self._mode, self._seed = vector_env, mode, seed
        self._resets = self._row = 0
        self._episode, self._began = np.zeros((2, self.num_envs), np.int64)

    def close(self) -> None:
        """Worker processes are gone when it returns."""
        vector_env, self._vector_env = self._vector_env, None
        if vector_env is None:
            return
        inner = vector_env.unwrapped
        if hasattr(inner, "processes"):
            end(inner)
            return

        def close_rest() -> None:
            # Its own loop would end with the first environment that fails.
            if closes:
                inner.envs = []
            vector_env.close()

        envs = enumerate(_environments(inner))
        closes = {f"environment {i} of {self.name}": env.close for i, env in envs}
        close_all({**closes, self.name: close_rest})

    def _begin(self) -> Obs:
        self._resets = self._row = 0
        self._episode[:] = self._began[:] = 0
        return self._reset(np.ones(self.num_envs, bool))

    def _advance(self, action: Any, first: np.ndarray) -> tuple[Obs, Any, Any, Any]:
        action = self._simulator_action(action, self.num_envs)
        self._row += 1
        starts = np.count_nonzero(first)
        if starts:
            self._episode[first] += 1
            self._began[first] = self._row
        if self._mode == "NEXT_STEP" or not starts:
            return self._step(action, first)
        if starts == self.num_envs:
            return self._reset(first), 0.0, ~first, ~first
        if self._mode == "DISABLED":
            self._reset(first)
        obs, reward, terminated, truncated = self._step(action, first)
        obs = self._restarted(first, ~(first | terminated | truncated), obs)
        return obs, reward, terminated, truncated

    def _step(self, action: Any, first: np.ndarray):
        """(obs, reward, terminated, truncated), with final observations in place."""
        obs, reward, *ends, infos = self._call("step", action)
        count, where = self.num_envs, self._where
        resets = self._mode != "NEXT_STEP" and bool(first.any())
        obs = self._observations.admitted(obs, count, where, copy=resets)
        reward = admitted_rewards(reward, count, where)
        if self._masks is not None:
            self._masks.read_all(infos, where)
        terminated = admitted_flags("terminated", ends[0], count, where)
        truncated = admitted_flags("truncated", ends[1], count, where)
        if resets:
            reward, terminated, truncated = map(
                np.array, (reward, terminated, truncated)
            )
        ended = ~first & (terminated | truncated)
        if ended.any():
            final = infos
            if self._mode == "SAME_STEP":
                obs = _put(obs, ended, self._final_observations(infos, ended))
                final = infos.get("final_info")
            self.info.add_lanes(final, np.flatnonzero(ended))
        return obs, reward, terminated, truncated

    def _final_observations(self, infos: dict[str, Any], ended: np.ndarray) -> Obs:
        final = infos.get("final_obs")
        if final is None:
            raise RuntimeError(
                f"{self.name} resets in the same step but does not report"
                " infos['final_obs']: make it with autoreset_mode NEXT_STEP"
            )
        indices = np.flatnonzero(ended)
        rows = self._observations.empty(len(indices))
        for row, index in enumerate(indices):
            found = _of_one(final, int(index), self._where)
            self._observations.write(rows, row, found, int(index), self._where)
        return self._observations.batch(rows, self._where, indices)

    def _restarted(self, first: np.ndarray, others: np.ndarray, obs: Obs) -> Obs:
        """`obs`, with new episodes where `first`; the `others` must stay as they are.
        (Of those that just ended, `obs` may have the final observation.)"""
        fresh = self._reset(first)
        if _seeds_of(self._vector_env) == "unknown" and not _equal(others, obs, fresh):
            raise RuntimeError(
                f"a reset of {self.name} with options={{'reset_mask': ...}} changed"
                " environments outside the mask: make it with autoreset_mode NEXT_STEP"
            )
        return _put(obs, first, trees.map_leaves(lambda x: x[first], fresh))

    def _reset(self, mask: np.ndarray) -> Obs:
        # gymnasium removes the mask from the options, so each reset has its own.
        options = None if mask.all() else {"reset_mask": mask.copy()}
        seeds = self._seeds(mask)
        self._resets += 1
        obs, infos = self._call("reset", seed=seeds, options=options)
        if self._masks is not None:
            self._masks.read_all(infos, self._where)
        return self._observations.admitted(obs, self.num_envs, self._where, copy=False)

    def _seeds(self, mask: np.ndarray) -> Any:
        """Seeds in the form that the vector environment takes."""
        if self._seed is None:
            return None
        kind = _seeds_of(self._vector_env)
        if kind == "unknown":
            return None if self._resets else rows.episode_seed(self._seed, 0, 0)
        indices = range(self.num_envs)
        seeds = [rows.episode_seed(self._seed, i, self._resets) for i in indices]
        return np.array(seeds)[mask] if kind == "masked" else seeds

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        vector_env = self._vector_env
        if vector_env is None:
            raise RuntimeError(f"{self.name} is closed")
        try:
            results = getattr(vector_env, method)(*args, **kwargs)
        except BaseException as error:
            place = f"row {self._row}{exits(vector_env)}"
            raise_from(error, f"in {method} of {self.name}, {place}")
        return admitted_results(results, method, self._where)

    def _where(self, index: int | None) -> str:
        if index is None:
            return f"the {self.num_envs} environments of {self.name}, row {self._row}"
        step = self._row - self._began[index]
        return (
            f"environment {index} of {self.name}, episode {self._episode[index]}, step"
            f" {step}"
        )


def _environments(vector_env: Any) -> list[Any]:
    """Those that a vector environment steps itself."""
    from gymnasium.vector import SyncVectorEnv

    return list(vector_env.envs) if isinstance(vector_env, SyncVectorEnv) else []


def _of_one(final: Any, index: int, where: Callable[[int | None], str]) -> Any:
    """The final observation of one environment, from an array of objects or from
    batches in the form of the observation."""
    if isinstance(final, dict):
        return {key: _of_one(x, index, where) for key, x in final.items()}
    if isinstance(final, tuple):
        return tuple(_of_one(x, index, where) for x in final)
    if np.ndim(final) == 0 or len(final) <= index:
        raise BadRowError(
            f"infos['final_obs'] has none of {where(index)}: {shown(final)}"
        )
    return final[index]


def _autoreset_mode(vector_env: Any) -> str:
    """NEXT_STEP, SAME_STEP or DISABLED, as the environment itself declares.

    gymnasium 1.3 writes `metadata["autoreset_mode"]` into the dict of the environment's
    class, and ale-py 0.12 into that of `VectorEnv`: there the latest instance speaks
    for all. They step by their attribute, so that is asked first.
    """
    from gymnasium.vector import AutoresetMode, VectorEnv

    inner = vector_env.unwrapped
    mode = getattr(inner, "autoreset_mode", None)
    if mode is None and inner.metadata is not VectorEnv.metadata:
        mode = inner.metadata.get("autoreset_mode")
    if isinstance(mode, str):
        mode = AutoresetMode(mode)
    if not isinstance(mode, AutoresetMode):
        raise ValueError(
            f"{inner} does not say how it resets: give its class a"
            " metadata['autoreset_mode'] of gymnasium.vector.AutoresetMode"
        )
    return mode.name


def _seeds_of(vector_env: Any) -> str:
    """How its `reset` takes seeds: a list for all, one for each in the mask, unknown.
    The first two are also those that keep to a mask."""
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

    inner = vector_env.unwrapped
    if isinstance(inner, SyncVectorEnv | AsyncVectorEnv):
        return "all"
    ale = type(inner).__module__.partition(".")[0] == "ale_py"
    return "masked" if ale else "unknown"


def _put(obs: Obs, where: np.ndarray, values: Obs) -> Obs:
    """A copy of `obs` with the values in the rows `where`."""

    def put(x, y):
        x = x.copy()
        x[where] = y
        return x

    return trees.map_leaves(put, obs, values)


def _equal(where: np.ndarray, a: Obs, b: Obs) -> bool:
    pairs = zip(trees.leaves(a), trees.leaves(b), strict=True)
    return all(np.array_equal(x[where], y[where]) for x, y in pairs)
