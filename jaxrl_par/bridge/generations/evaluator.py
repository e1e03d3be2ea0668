"""Who plays parts of generations: whole episodes, with parameters that are given.

An evaluator keeps nothing from one part to the next. So a part that was lost with its
worker is played again by any other, and gives the same.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_par.bridge.acting import count_of
from jaxrl_par.bridge.generations.compiled import Compiled
from jaxrl_par.bridge.pooled import PooledActor
from jaxrl_par.bridge.supervision import Activity
from jaxrl_par.bridge.unrolled import MakeEnv
from jaxrl_par.envs import Environment
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.host.checked import checked
from jaxrl_par.envs.host.failures import raise_from
from jaxrl_par.loops.generations import Members, Place, Played
from jaxrl_par.types import Params, PRNGKey, TimeStep


class Task(NamedTuple):
    """A part that is to be played."""

    generation: int
    part: int
    cap: Any
    """Steps after which a member's episode is cut."""
    params: Params = None
    """Those of the generation; whoever plays elsewhere pulls them."""


class EvaluatorState(NamedTuple):
    """How often an evaluator played, and was made anew: it has no more."""

    unroll: Any
    generation: Any


class Evaluator(PooledActor):
    """Plays parts, here or elsewhere."""

    kind = "worker"

    @abstractmethod
    def evaluate(self, task: Task) -> Played | None:
        """What came of the part, in NumPy; None if its generation is over."""


class _Here(Evaluator):
    """Plays in this process."""

    def __init__(
        self, index: int, functions: Compiled, num_parts: int, root: PRNGKey,
        device: Any, activity: Activity,
    ):  # fmt: skip
        super().__init__(index, root, device, activity)
        self._functions = functions
        self._num_parts = num_parts
        self._task: Task | None = None

    def where(self, row: int | None = None) -> str:
        name = self.env.name if self.env else "no environment"
        task = self._task
        part = f", part {task.part} of generation {task.generation}" if task else ""
        return f"{self.kind} {self.index}, {name}{part}, restart {self.generation}"

    def start(self, key: PRNGKey, generation: int = 0, unroll: int = 0) -> None:
        self.generation, self.next_unroll = generation, unroll

    def resume(self, state: Any, key: PRNGKey, fresh_key: PRNGKey) -> bool:
        """Always goes on exactly: it keeps nothing."""
        self.start(key, int(state.generation), int(state.unroll))
        return True

    def state(self) -> EvaluatorState:
        return EvaluatorState(np.int32(self.next_unroll), np.int32(self.generation))

    def evaluate(self, task: Task) -> Played:
        self._task = task
        number = count_of(task.generation)
        part = np.int32(task.part), np.int32(self._num_parts)
        with jax.default_device(self._device):
            played = self._play(task, Place(self._root, number, *part))
        # Last: one that failed before this is still at the same part.
        self.next_unroll += 1
        self._task = None
        return played

    @abstractmethod
    def _play(self, task: Task, place: Place) -> Played: ...


class PureEvaluator(_Here):
    """Plays pure environments, all members side by side in one compiled call."""

    def __init__(self, *arguments: Any, env: Environment, **options: Any):
        super().__init__(*arguments, **options)
        self.env = env

    def close(self) -> None:
        """There is nothing to free."""

    def _play(self, task: Task, place: Place) -> Played:
        # Not timed: a compiled call comes back. This only asks whether to stop.
        self._activity.doing = "playing"
        self._activity.end()
        play = self._functions.play
        given = task.params, place, task.cap
        played = self.times.timed("playing", lambda: jax.device_get(play(*given)))
        self.rows += int(played.lengths.sum() + played.own_lengths.sum())
        return played


class HostEvaluator(_Here):
    """Plays simulators, one member after the other, row by row.

    They are made anew for each member, from the key that it shares with the other one
    of its pair: nothing else makes two simulators show the same.
    """

    env: HostEnvironment | None

    def __init__(
        self, *arguments: Any, make_env: MakeEnv,
        claim: Callable[[int, HostEnvironment], None], **options: Any,
    ):  # fmt: skip
        """`claim`: that of its factory, called with what it will step."""
        super().__init__(*arguments, **options)
        self._make_env = make_env
        self._claim = claim
        self._in_progress = 0

    @property
    def rows_in_progress(self) -> int:
        return self._in_progress

    def start(self, key: PRNGKey, generation: int = 0, unroll: int = 0) -> None:
        super().start(key, generation, unroll)
        self._in_progress = 0
        # To know them, and to find out now if they cannot be made.
        self._made(key)

    def close(self) -> None:
        env = self.env
        if env is not None:
            self._timed("close", env.close)

    def _play(self, task: Task, place: Place) -> Played:
        self._in_progress = 0
        functions = self._functions
        members: Members = functions.members(task.params, place)
        cap, number = min(int(task.cap), functions.max_steps), len(members.pairs)

        def played(pair: int, sign: int, limit: int) -> Any:
            given = functions.member(members, np.int32(pair), np.int32(sign))
            return self._episodes(given, limit, pair == number)

        pairs = [[played(i, sign, cap) for sign in range(2)] for i in range(number)]
        returns = np.array([[x[0] for x in pair] for pair in pairs])
        lengths = np.array([[x[1] for x in pair] for pair in pairs])
        # Members are compared; the parameters as they are play to the end.
        own = played(number, 1, functions.max_steps)
        told: Any = jax.device_get(members.pairs), np.mean(returns, axis=2), lengths
        self._in_progress = 0
        return Played(*told, *own)

    def _episodes(self, given: tuple[Params, Any], limit: int, own: bool) -> Any:
        """Returns [E], lengths [E], and what the parameters as they are saw.

        As `loops.playing.play`, whose order of keys and rows is the same.
        """
        params, (start_key, act_keys, env_keys) = given
        functions = self._functions
        env = checked(self._made(start_key))
        env.plan(env_keys)
        step: TimeStep = self._timed("reset", env.reset)
        carry = functions.carry(env.num_envs)
        returns = np.zeros(env.num_envs, np.float32)
        lengths = np.zeros(env.num_envs, np.int32)
        running = np.ones(env.num_envs, np.bool_)
        rows = functions.rows(env) if own else None
        if rows:
            rows.begin(step)
        for t in range(limit):
            before = self.times.clock()
            action, carry = functions.act(params, carry, step, act_keys, np.int32(t))
            action = jax.tree.map(np.asarray, action)
            acted = self.times.clock()
            self.times.add("acting", acted - before)
            step, reward, discount = self._timed("step", env.step, action)
            self.times.add("environment", self.times.clock() - acted)
            returns += np.where(running, reward, np.float32(0))
            lengths += running
            self.rows += env.num_envs
            self._in_progress += env.num_envs
            if rows:
                rows.add(action, reward, discount, step)
            running &= ~np.asarray(step.last)
            if not running.any():
                break
        return returns, lengths, rows.trajectory() if rows else ()

    def _made(self, key: PRNGKey) -> HostEnvironment:
        self.close()
        self.env = None

        # Kept before anything can stop it, so that it is always closed.
        def make() -> HostEnvironment:
            env = self._make_env(key)
            self._claim(self.index, env)
            self.env = env
            return env

        return self.times.timed("making environments", self._timed, "make", make)

    def _timed(self, doing: str, call: Callable, *arguments: Any) -> Any:
        self._activity.begin(doing)
        try:
            result = call(*arguments)
        except BaseException as error:
            self._activity.end()
            raise_from(error, f"in {doing} of {self.where()}")
        self._activity.end()
        return result
