"""The learner's side: unrolls become a batch on the mesh, and the batch an update."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from jaxrl_par import loops
from jaxrl_par.axis import Axis
from jaxrl_par.bridge.actor import Unrolled
from jaxrl_par.bridge.reports import Tally
from jaxrl_par.envs.host import info
from jaxrl_par.loops import Learner, Run
from jaxrl_par.types import Mean, Metrics, Params, State, Trajectory


class Batch(NamedTuple):
    """Unrolls side by side, on the learner's devices."""

    trajectory: Trajectory
    unrolls: list[Unrolled]


class MeshLearner:
    """Compiles and runs updates on a mesh."""

    def __init__(
        self,
        learner: Learner,
        mesh: Mesh,
        axis: Axis,
        tally: Tally,
        *,
        deferred: bool = False,
    ):
        """`deferred`: leave the lessons of `Learner.deferred` to other threads."""
        self._mesh = mesh
        self._tally = tally
        rows, lanes = P(None, axis.name), P(axis.name)
        self._specs: Any = Trajectory(rows, rows, rows, rows, rows, lanes)  # pyright: ignore
        # The data have a leading device axis, as `Run.local` in `topologies.sharded`.
        run: Any = Run(P(), lanes, P(), P(), P())  # pyright: ignore
        self._deferred = learner.deferred if deferred else None
        if self._deferred:
            learn: Callable = loops.lead_from(self._deferred, axis)
        else:
            learn = loops.learn_from(learner, axis)

        def step(run: Run, trajectory: Trajectory) -> tuple[Run, Metrics, Any]:
            own = jax.tree.map(lambda x: x[0], run.local)
            learned = learn(run._replace(local=own), trajectory)
            run, metrics, lessons = learned if self._deferred else (*learned, ())
            shared = jax.tree.map(lambda x: x[None], run.local)
            return run._replace(local=shared), metrics, lessons

        def start(trajectory: Trajectory) -> Any:
            return jax.tree.map(lambda x: x[None], learner.start(trajectory))

        # As in `topologies.sharded`.
        on_mesh = partial(jax.shard_map, mesh=mesh, check_vma=False)
        self._function = on_mesh(
            step, in_specs=(run, self._specs), out_specs=(run, P(), P())
        )
        self._start = on_mesh(start, in_specs=(self._specs,), out_specs=lanes)
        self._compiled: Callable | None = None
        self._compiled_distil: Callable | None = None

    def place(self, tree: Any) -> Any:
        """A run or a part of it, replicated over the mesh."""
        return jax.device_put(tree, NamedSharding(self._mesh, P()))

    def data(self, shapes: Trajectory) -> Any:
        """Empty data of the learner on all devices, for batches of these shapes."""

        zeros = partial(jax.tree.map, lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.jit(lambda: self._start(zeros()))()

    def upload(self, unrolls: Sequence[Unrolled]) -> Batch:
        """Joins unrolls along the environments, and shares these over the devices."""
        concatenate: Any = np.concatenate
        joined = Trajectory.join([item.trajectory for item in unrolls], concatenate)
        self._tally.uploaded_bytes += sum(x.nbytes for x in jax.tree.leaves(joined))
        shardings: Any = [NamedSharding(self._mesh, x) for x in self._specs]
        trajectory = jax.device_put(joined, Trajectory(*shardings))
        return Batch(jax.block_until_ready(trajectory), list(unrolls))

    def compile(self, run: Run, batch: Batch) -> None:
        """Compiles the update for such a batch, unless it is done."""
        if self._compiled is not None:
            return
        started = time.perf_counter()
        lowered = jax.jit(self._function, donate_argnums=0).lower(run, batch.trajectory)
        self._compiled = lowered.compile()
        if self._deferred:
            student = self._deferred.part(run.learner)
            self._compile_distil(student, lessons=lowered.out_info[2])
        self._tally.compile_seconds += time.perf_counter() - started

    def update(self, run: Run, batch: Batch) -> tuple[Run, Metrics, Any]:
        """One update, done when this returns; it donates the run.

        The last result is the lessons that it leaves, () if none.
        """
        self.compile(run, batch)
        assert self._compiled is not None
        # Waiting also keeps programs with collectives from piling up: see DESIGN, 6.
        return jax.block_until_ready(self._compiled(run, batch.trajectory))

    def distil(
        self, student: State, lessons: Any, number: Any
    ) -> tuple[State, Metrics]:
        """The student after one of the lessons of an update."""
        assert self._compiled_distil is not None
        return self._compiled_distil(student, lessons, number)

    def distilled(
        self,
        run: Run,
        student: State,
        learned: Sequence[Metrics],
        lessons: Sequence[Sequence[Metrics]],
    ) -> tuple[Run, list[Metrics]]:
        """The run and its metrics when no lesson is left.

        Args:
          learned: metrics of each update.
          lessons: metrics of the lessons of each.
        """
        deferred = self._deferred
        assert deferred is not None
        progress, metrics = run.progress, []
        for ours, theirs in zip(learned, lessons, strict=True):
            metrics.append(deferred.join(ours, stacked(theirs)))
            progress = loops.count_skipped(progress, metrics[-1])
        learner = deferred.replace(run.learner, self.place(student))
        run = run._replace(learner=learner, progress=self.place(progress))
        return run, metrics

    def count(self, batch: Batch, version: int) -> Metrics:
        """Counts rows by lag, at the moment when `version` learns from them; lags, and
        means over the episodes that ended in the batch, numpy."""
        lags = [version - item.version for item in batch.unrolls]
        for lag, item in zip(lags, batch.unrolls, strict=True):
            self._tally.lags[lag] += item.trajectory.reward.size
            self._tally.env_steps += int(np.sum(~item.trajectory.rows.last))
        self._tally.updates += 1
        numbers: Any = np.array([sum(lags), len(lags), max(lags)], "f4")
        sums: Any = np.array([x.episodes for x in batch.unrolls], "f4").sum(axis=0)
        return {
            "lag": Mean(numbers[0], numbers[1]),
            "lag_max": numbers[2],
            "episode_return": Mean(sums[0], sums[2]),
            "episode_length": Mean(sums[1], sums[2]),
            **info.total([x.info for x in batch.unrolls]),
        }

    def _compile_distil(self, student: State, lessons: Any) -> None:
        assert self._deferred is not None
        distil = loops.lesson_from(self._deferred)

        def one(student: State, lessons: Any, number: Any) -> tuple[State, Metrics]:
            return distil(student, jax.tree.map(lambda x: x[number], lessons))

        sharding = NamedSharding(self._mesh, P())
        arguments: Any = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            (student, lessons, np.int32(0)),
        )
        self._compiled_distil = jax.jit(one).lower(*arguments).compile()


def stacked(metrics: Sequence[Metrics]) -> Any:
    """Metrics of several updates, [num_updates], in numpy."""
    both: Any = jax.tree.map(lambda *xs: np.stack(xs), *jax.device_get(list(metrics)))
    return info.known(both)


def copied(params: Params, device: Any) -> Params:
    """The parameters on an actor's `jax.Device`, in memory that no update donates; done
    when this returns, or actors would wait for it inside a call, where nothing can stop
    them."""
    sharding = SingleDeviceSharding(device)
    return jax.block_until_ready(jax.device_put(params, sharding, may_alias=False))
