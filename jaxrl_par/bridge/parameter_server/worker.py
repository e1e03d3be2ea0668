"""A worker: environments of its own, and gradients of what it does in them.

It knows nothing of threads and stores, as an `Actor` knows nothing of queues. There are
two kinds, which do the same: one steps simulators row by row; the other one has a pure
environment, and acts and differentiates in one compiled call, which does not hold the
interpreter.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par import rollout
from jaxrl_par.bridge.acting import Acting, count_of
from jaxrl_par.bridge.actor import Actor
from jaxrl_par.bridge.pooled import PooledActor
from jaxrl_par.bridge.supervision import Activity
from jaxrl_par.bridge.unrolled import ActorState, MakeEnv
from jaxrl_par.envs import Environment
from jaxrl_par.loops import Gradient, Learner, asynchronous
from jaxrl_par.types import Grads, Mean, Metrics, PRNGKey, State, Trajectory


class PushInfo(NamedTuple):
    """What is remembered of an unroll: a few numbers."""

    worker: int
    unroll: int
    generation: int
    """How often its environments had been made anew."""
    metrics: np.ndarray
    """[M], leaf by leaf."""
    env_steps: int
    rows: int
    info: Metrics
    """What simulators told of the episodes that ended: `HostEnvironment.take_info`."""


class Computed(NamedTuple):
    """What a worker has made of an unroll."""

    given: Gradient
    """Its gradient, with metrics as `packed`."""
    info: PushInfo
    after: Any
    """The worker's state after the unroll, for checkpoints."""
    read: Any = None
    """Where a worker elsewhere has read the parameters itself: `stores.Pulled`, without
    the state."""


class HostState(NamedTuple):
    """All of a worker between two unrolls."""

    actor: ActorState
    data: Any
    """The learner's."""

    @property
    def unroll(self) -> Any:
        return self.actor.unroll

    @property
    def generation(self) -> Any:
        return self.actor.generation


class Worker(PooledActor):
    """A worker, whose environments may be elsewhere."""

    kind = "worker"

    @abstractmethod
    def contribute(self, state: State) -> Computed:
        """The gradient of an unroll, both with the same parameters."""


class HostWorker(Actor, Worker):
    """Steps simulators."""

    kind = "worker"

    def __init__(
        self,
        index: int,
        make_env: MakeEnv,
        acting: Acting,
        gradient: Callable,
        params: Callable,
        start_data: Callable[[], Any],
        length: int,
        root: PRNGKey,
        device: Any,
        **options: Any,
    ):
        """
        Args:
          gradient: `gradients` of the learner.
          params: `Learner.params`
          start_data: makes the learner's data, once the shapes of a batch are known.
        """
        super().__init__(index, make_env, acting, length, root, device, **options)
        self._gradient = gradient
        self._params = params
        self._start_data = start_data
        self._data: Any = None

    def resume(self, state: HostState, key: PRNGKey, fresh_key: PRNGKey) -> bool:
        self._data = jax.device_put(state.data, self._device)
        return super().resume(state.actor, key, fresh_key)

    def state(self) -> HostState:
        if self._data is None:
            self._data = self._start_data()
        return HostState(super().state(), self._data)

    def contribute(self, state: State) -> Computed:
        """The gradient of an unroll, both with the same parameters.

        Raises:
          Stopped, Exception: as `Actor.unroll`.
        """
        item = self.unroll(self._params(state), 0)
        # All rows have one version: that of `state`.
        extras = {n: x for n, x in item.trajectory.extras.items() if n != "version"}
        trajectory = item.trajectory._replace(extras=extras)
        place = self._root, count_of(item.unroll), np.int32(self.index)
        sums = np.array(item.episodes, np.float32)
        self._data, given = self.times.timed(
            "gradient", self._gradient, state, self._data, trajectory, sums, *place
        )
        size = trajectory.reward.size
        info = _info(self, item.unroll, given, size, item.info)
        after: Any = item.after
        return Computed(given, info, after._replace(data=self._data))


class PureState(NamedTuple):
    """All of a worker between two unrolls, as `ActorState`."""

    unroll: Any
    generation: Any
    streams: rollout.Streams
    data: Any
    """The learner's."""


class PureWorker(Worker):
    """Steps a pure environment, inside the compiled function that differentiates."""

    def __init__(
        self,
        index: int,
        start: Callable,
        contribute: Callable,
        rows: int,
        root: PRNGKey,
        device: Any,
        activity: Activity,
    ):
        """
        Args:
          start: (key, worker) -> its environments, and the learner's data
          contribute: `pure_gradients` of the learner.
          rows: rows of an unroll, over all environments.
        """
        super().__init__(index, root, device, activity)
        self._start = start
        self._contribute = contribute
        self._rows = rows
        self._data: Any = None

    def where(self, row: int | None = None) -> str:
        return (
            f"worker {self.index}, unroll {self.next_unroll}, generation"
            f" {self.generation}"
        )

    def start(self, key: PRNGKey, generation: int = 0, unroll: int = 0) -> None:
        self.generation, self.next_unroll = generation, unroll
        key = jax.device_put(key, self._device)
        self._streams, data = self._start(key, jnp.int32(self.index))
        # What was acted before its environments were made anew is still true.
        self._data = data if self._data is None else self._data

    def resume(self, state: PureState, key: PRNGKey, fresh_key: PRNGKey) -> bool:
        """Always goes on exactly."""
        self.generation, self.next_unroll = int(state.generation), int(state.unroll)
        self._streams = jax.device_put(state.streams, self._device)
        self._data = jax.device_put(state.data, self._device)
        return True

    def state(self) -> PureState:
        return PureState(
            np.int32(self.next_unroll),
            np.int32(self.generation),
            self._streams,
            self._data,
        )

    def contribute(self, state: State) -> Computed:
        """The gradient of an unroll, as `HostWorker.contribute`.

        Raises:
          Stopped: `cancel` was called.
        """
        self._activity.doing = "computing"
        # Not timed: a compiled call comes back. This only asks whether to stop.
        self._activity.end()
        place = self._root, count_of(self.next_unroll), np.int32(self.index)
        streams, data, given = self.times.timed(
            "computing", self._contribute, state, self._streams, self._data, *place
        )
        info = _info(self, self.next_unroll, given, self._rows, {})
        # Last: a worker that failed before this is still at the same unroll.
        self._streams, self._data = streams, data
        self.next_unroll += 1
        self.rows += self._rows
        return Computed(given, info, self.state())

    def close(self) -> None:
        """There is nothing to free."""


def _info(
    worker: Worker, unroll: int, given: Gradient, rows: int, told: Metrics
) -> PushInfo:
    env_steps, *metrics = np.asarray(given.metrics["packed"])
    return PushInfo(
        worker.index,
        unroll,
        worker.generation,
        np.array(metrics),
        int(env_steps),
        rows,
        told,
    )


class Function:
    """A function compiled once, for fixed shapes: inputs from NumPy, or with another
    placement, do not compile it again."""

    def __init__(self, function: Callable):
        self._jitted = jax.jit(function)
        self._compiled: Callable | None = None

    def compile(self, *arguments: Any) -> None:
        """For arguments of these shapes, unless it is done."""
        if self._compiled is None:
            self._compiled = self._jitted.lower(*arguments).compile()

    def __call__(self, *arguments: Any) -> Any:
        """The result, computed when this returns."""
        return jax.block_until_ready((self._compiled or self._jitted)(*arguments))


def packed(given: Gradient) -> Gradient:
    """With one array of metrics, environment steps before them: one transfer, not one
    for each."""
    leaves = [given.env_steps, *jax.tree.leaves(given.metrics)]
    numbers = jnp.stack([jnp.asarray(x, jnp.float32) for x in leaves])
    told = jnp.asarray(given.accepted), jnp.asarray(given.outlying)
    return Gradient(given.grads, {"packed": numbers}, given.env_steps, *told)


def apply_packed(
    apply: Callable, tree: Any, state: State, grads: Grads, metrics: Metrics
) -> State:
    """`Halves.apply` of a `packed` gradient whose metrics had this structure."""
    return apply(state, grads, tree.unflatten(list(metrics["packed"])[1:]))


def gradients(learner: Learner) -> Function:
    """(state, data, trajectory, sums over its episodes [3], root, unroll, worker) ->
    (data, `packed` gradient)"""

    def gradient(state: State, data: Any, trajectory: Trajectory, sums: Any, *place):
        data, given = asynchronous.gradient(learner, state, data, trajectory, *place)
        metrics = given.metrics | {
            "episode_return": Mean(sums[0], sums[2]),
            "episode_length": Mean(sums[1], sums[2]),
        }
        return data, packed(given._replace(metrics=metrics))

    return Function(gradient)


def pure_starts(
    learner: Learner, env: Environment, unroll_length: int, num_workers: int
) -> Callable:
    """(key, worker) -> (its environments, the learner's data)"""

    def start(key: PRNGKey, worker: Any) -> tuple[rollout.Streams, Any]:
        streams = rollout.start(learner.actor, env, key, worker, num_workers)
        state = jax.eval_shape(learner.init, key, streams.step)
        params = learner.params(state)
        shapes = rollout.shapes(learner.actor, params, streams.step, unroll_length)
        return streams, learner.start(shapes)

    return jax.jit(start)


def pure_gradients(learner: Learner, env: Environment, unroll_length: int) -> Function:
    """(state, environments, data, root, unroll, worker) ->
    (environments, data, `packed` gradient)"""

    def contribute(state: State, *rest: Any):
        done = asynchronous.turn(learner, env, unroll_length, state, state, *rest)
        return done.streams, done.data, packed(done.gradient)

    return Function(contribute)
