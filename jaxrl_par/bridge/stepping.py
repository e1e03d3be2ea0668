"""Steps environments: rows, ends of episodes and what is kept, whoever acts.

It knows nothing of threads and queues. Whether it runs freely, in lockstep or serially
in a replay is decided by who calls `unroll`, and with which parameters. Nothing here
imports JAX: `actor` acts with it, `plain` without.
"""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import numpy as np

from jaxrl_par import trees
from jaxrl_par.bridge.supervision import Activity, Stopped
from jaxrl_par.bridge.unrolled import (
    ActorState,
    AnyActor,
    Episodes,
    MakeEnv,
    Unrolled,
)
from jaxrl_par.envs.host.admission import BadRowError
from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.envs.host.failures import raise_from
from jaxrl_par.envs.host.unrolls import UnrollBuffer
from jaxrl_par.stream import Carry, Params, TimeStep, Trajectory


class SteppingActor(AnyActor):
    """Steps its environments, in one thread at a time."""

    acts = "acting"
    """What it does at each step, besides the environment: a name in its `times`."""

    def __init__(
        self,
        index: int,
        make_env: MakeEnv,
        length: int,
        root: Any,
        device: Any,
        activity: Activity,
        *,
        claim: Callable[[int, HostEnvironment], None],
        check_bounds: bool = True,
    ):
        """`claim`: that of its factory, called with what it will step."""
        super().__init__(index, root, device, activity)
        self.env: HostEnvironment | None = None
        self._make_env = make_env
        self._claim = claim
        self._length = length
        self._check_bounds = check_bounds
        self._t = 0

    @property
    def rows_in_progress(self) -> int:
        return self._t * (self.env.num_envs if self.env else 0)

    def where(self, row: int | None = None) -> str:
        name = self.env.name if self.env else "no environment"
        row, unroll = self._t if row is None else row, self.next_unroll
        return (
            f"{self.kind} {self.index}, {name}, step {unroll * self._length + row}"
            f" (row {row} of unroll {unroll}), generation {self.generation}"
        )

    def start(self, key: Any, generation: int = 0, unroll: int = 0) -> None:
        self.generation, self.next_unroll, self._t = generation, unroll, 0
        with self._where_it_acts():
            env = self._make(key)
            self._step = self._timed("reset", env.reset)
            self._carry = self._no_memory(env.num_envs)
        self._returns = np.zeros(env.num_envs, np.float32)
        self._lengths = np.zeros(env.num_envs, np.int32)

    def resume(self, state: ActorState, key: Any, fresh_key: Any) -> bool:
        generation, unroll = int(state.generation), int(state.unroll)
        if not trees.leaves(state.env):
            self.start(fresh_key, generation + 1, unroll)
            return False
        self.generation, self.next_unroll, self._t = generation, unroll, 0
        with self._where_it_acts():
            env = self._make(key)
            shown = self._timed("restore", env.restore, state.env)
        kept = trees.map_leaves(np.array, state.step)
        pairs = zip(trees.leaves(shown), trees.leaves(kept), strict=True)
        if not all(np.array_equal(x, y) for x, y in pairs):
            raise RuntimeError(
                f"{env.name} is not deterministic: brought back by its actions, it"
                " shows something else than when it was saved"
            )
        self._step = kept
        self._carry = self._placed(state.carry)
        self._returns = np.array(state.returns)
        self._lengths = np.array(state.lengths)
        return True

    def state(self) -> ActorState:
        assert self.env is not None
        snapshot = self.env.snapshot()
        return ActorState(
            unroll=np.int32(self.next_unroll),
            generation=np.int32(self.generation),
            step=trees.map_leaves(np.array, self._step),
            carry=self._carry,
            returns=self._returns.copy(),
            lengths=self._lengths.copy(),
            env=() if snapshot is None else snapshot,
        )

    def unroll(self, params: Params, version: int) -> Unrolled:
        """Acts T times in every environment.

        Raises:
          Stopped: `cancel` was called.
          Exception: whatever the environment raised, as an error, or `BadRowError`,
            with a note that names actor, environment and step.
        """
        try:
            return self._unrolled(params, version)
        except Stopped:
            raise
        except BaseException as error:
            self._activity.end()
            row = error.row if isinstance(error, BadRowError) else None
            raise_from(error, f"in {self.where(row)}")

    def close(self) -> None:
        if self.env is None:
            return
        self._activity.begin("close")
        try:
            self.env.close()
        except BaseException as error:
            # Also of one that was cancelled: nobody would hear of it otherwise.
            with suppress(Stopped):
                self._activity.end()
            raise_from(error, f"in close of {self.where()}")
        self._activity.end()

    def _unrolled(self, params: Params, version: int) -> Unrolled:
        env, times = self.env, self.times
        assert env is not None
        self._t = 0
        with self._where_it_acts():
            keys, env_keys = self._plan()
            env.plan(env_keys)
            rows = UnrollBuffer(
                env.observation_spec, env.action_spec, self._length, env.num_envs
            )
            rows.write_step(0, self._step)
            self._begin(params, version, keys, rows.row(0))
            before = times.clock()
            for t in range(self._length):
                # What is in the buffers stays as it is; environments may reuse theirs.
                action = rows.write_action(t, self._act(t, rows.row(t)))
                acted = times.clock()
                self._activity.begin("step")
                step, reward, discount = env.step(action)
                self._activity.end()
                rows.write_step(t + 1, step)
                rows.write_reward(t, reward, discount)
                self.rows += env.num_envs
                self._t = t + 1
                now = times.clock()
                times.add(self.acts, acted - before)
                times.add("environment", now - acted)
                before = now
            rows.check(self._check_bounds)
            self._step = rows.row(self._length)
            before = times.clock()
            trajectory = self._end(rows.trajectory({}, ()))
            times.add(self.acts, times.clock() - before)
        return self._complete(trajectory)

    def _where_it_acts(self) -> AbstractContextManager[Any]:
        """Around all that is computed."""
        return nullcontext()

    @abstractmethod
    def _no_memory(self, num_envs: int) -> Carry:
        """The memory before anything was seen."""

    @abstractmethod
    def _placed(self, carry: Carry) -> Carry:
        """A memory that was saved, where it acts."""

    @abstractmethod
    def _plan(self) -> tuple[Any, Any]:
        """Keys [T] to act with in the next unroll, and those of the environment."""

    @abstractmethod
    def _begin(self, params: Params, version: int, keys: Any, step: TimeStep) -> None:
        """Before the first row of an unroll. `keys`: to act with, [T]."""

    @abstractmethod
    def _act(self, t: int, step: TimeStep) -> Any:
        """The action of row t."""

    @abstractmethod
    def _end(self, trajectory: Trajectory) -> Trajectory:
        """The unroll, with what the agent left and its memory before the first row."""

    def _complete(self, trajectory: Trajectory) -> Unrolled:
        assert self.env is not None
        last: Any = trajectory.steps.last
        episodes = self._episodes(np.asarray(trajectory.reward), last)
        self.env_steps += int(np.sum(~last[:-1]))
        number = self.next_unroll
        self.next_unroll += 1
        version = int(np.min(trajectory.extras["version"]))
        return Unrolled(
            self.index, number, self.generation, version, trajectory, episodes,
            self.env.take_info(), self.state(),
        )  # fmt: skip

    def _episodes(self, reward: np.ndarray, last: Any) -> Episodes:
        """Sums over ended episodes; those in progress are kept for the next unroll."""
        return_, length, count = 0.0, 0.0, 0
        running = ~last[:-1]
        start = 0
        # Between two rows in which any episode ends, sums over whole blocks.
        for end in np.union1d(np.flatnonzero(last[1:].any(axis=1)) + 1, len(reward)):
            self._returns += reward[start:end].sum(axis=0)
            self._lengths += running[start:end].sum(axis=0, dtype=np.int32)
            ended = last[end]
            return_ += float(self._returns[ended].sum())
            length += float(self._lengths[ended].sum())
            count += int(ended.sum())
            self._returns[ended] = 0.0
            self._lengths[ended] = 0
            start = end
        return Episodes(return_, length, count)

    def _make(self, key: Any) -> HostEnvironment:
        # Kept before anything can stop it, so that it is always closed. What another
        # actor steps is not ours to close.
        def make() -> HostEnvironment:
            env = self._make_env(key)
            self._claim(self.index, env)
            self.env = env
            return env

        return self._timed("make", make)

    def _timed(self, doing: str, call: Callable, *arguments: Any) -> Any:
        self._activity.begin(doing)
        try:
            result = call(*arguments)
        except BaseException as error:
            self._activity.end()
            raise_from(error, f"in {doing} of {self.where()}")
        self._activity.end()
        return result
