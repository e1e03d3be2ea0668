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
from jaxrl_par.measured import Metric
from jaxrl_par.types import Mean, Metrics, Params, State, Trajectory

METRICS = {
    "lag": Metric(
        "updates",
        "between the parameters that acted in a row and those that learn from it",
    ),
    "lag_max": Metric("updates", "the largest of these"),
}

_NOTHING: Any = Mean(np.float32(0), np.float32(0))  # pyright: ignore
"""The mean of nothing."""


class Batch(NamedTuple):
    """Unrolls side by side, on the learner's devices."""

    trajectory: Trajectory
    unrolls: list[Unrolled]
    dropped: Sequence[Unrolled] = ()
    """Those that were too old while it was collected."""


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
        self._run_specs = run
        self._deferred = learner.deferred if deferred else None
        if self._deferred:
            learn: Callable = loops.lead_from(self._deferred, axis)
        else:
            learn = loops.learn_from(learner, axis)

        def step(run: Run, trajectory: Trajectory) -> tuple[Run, Metrics, Any]:
            learned = learn(own(run), trajectory)
            run, metrics, lessons = learned if self._deferred else (*learned, ())
            return shared(run), metrics, lessons

        def start(trajectory: Trajectory) -> Any:
            return jax.tree.map(lambda x: x[None], learner.start(trajectory))

        # As in `topologies.sharded`.
        self._on_mesh = partial(jax.shard_map, mesh=mesh, check_vma=False)
        self._function = self._on_mesh(
            step, in_specs=(run, self._specs), out_specs=(run, P(), P())
        )
        self._start = self._on_mesh(start, in_specs=(self._specs,), out_specs=lanes)
        self.ready = True
        """Whether the last update was from enough."""
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

    def look(self, run: Run) -> None:
        """Sees whether there is enough to learn from, in a run that begins or goes on;
        its local part is the learner's data."""

    def is_compiled(self, batches: Sequence[Batch]) -> bool:
        """Whether an update from such batches can begin at once."""
        return self._compiled is not None

    def compile(self, run: Run, batches: Sequence[Batch]) -> None:
        """Compiles the update from such batches."""
        started = time.perf_counter()
        (batch,) = batches
        lowered = jax.jit(self._function, donate_argnums=0).lower(run, batch.trajectory)
        self._compiled = lowered.compile()
        if self._deferred:
            student = self._deferred.part(run.learner)
            self._compile_distil(student, lessons=lowered.out_info[2])
        self._tally.compile_seconds += time.perf_counter() - started

    def update(self, run: Run, batches: Sequence[Batch]) -> tuple[Run, Metrics, Any]:
        """One update, done when this returns; it donates the run.

        The last result is the lessons that it leaves, () if none.
        """
        (batch,) = batches
        if not self.is_compiled(batches):
            self.compile(run, batches)
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

    def count(self, unrolls: Sequence[Unrolled], version: int) -> Metrics:
        """Counts rows by lag, at the moment when `version` learns from them; lags, and
        means over the episodes that ended in them, numpy. There may be none.

        In one unroll several versions may have acted: its lag is the mean over rows,
        and the largest one is that of any row.
        """
        lags, most, any_ = [], 0, bool(unrolls)
        for item in unrolls:
            length, num_envs = item.trajectory.reward.shape
            total = 0
            for acted, rows in item.versions.items():
                self._tally.lags[version - acted] += rows * num_envs
                total += rows * (version - acted)
                most = max(most, version - acted)
            lags.append(total / length)
            self._tally.learned_rows[item.actor] += item.trajectory.reward.size
            self._tally.env_steps += int(np.sum(~item.trajectory.rows.last))
        self._tally.updates += 1
        numbers: Any = np.array([sum(lags), len(lags), most, any_], "f4")
        episodes = np.array([x.episodes for x in unrolls], "f4").reshape(-1, 3)
        sums: Any = episodes.sum(axis=0)
        return {
            "lag": Mean(numbers[0], numbers[1]),
            "lag_max": Mean(numbers[2], numbers[3]),
            "episode_return": Mean(sums[0], sums[2]),
            "episode_length": Mean(sums[1], sums[2]),
            **info.total([x.info for x in unrolls]),
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


def own(run: Run) -> Run:
    """What one device has of a run on a mesh."""
    return run._replace(local=jax.tree.map(lambda x: x[0], run.local))


def shared(run: Run) -> Run:
    """The inverse."""
    return run._replace(local=jax.tree.map(lambda x: x[None], run.local))


def stacked(metrics: Sequence[Metrics]) -> Any:
    """Metrics of several updates, [num_updates], in numpy."""
    rows: list[Any] = jax.device_get(list(metrics))
    # What simulators tell of episodes is not told by an update without unrolls.
    names = dict.fromkeys(name for row in rows for name in row)
    rows = [{name: row.get(name, _NOTHING) for name in names} for row in rows]
    both: Any = jax.tree.map(lambda *xs: np.stack(xs), *rows)
    return info.known(both)


def _one(x: Any) -> Any:
    """What one device has of an array that several may have."""
    return x.addressable_data(0) if isinstance(x, jax.Array) else x


def copied(params: Params, device: Any) -> Params:
    """The parameters on an actor's `jax.Device`, in memory that no update donates; done
    when this returns, or actors would wait for it inside a call, where nothing can stop
    them."""
    sharding = SingleDeviceSharding(device)
    # Of an array on several devices `device_put` gives a part as it is, may_alias or
    # not (jax 0.11).
    one = jax.tree.map(_one, params)
    return jax.block_until_ready(jax.device_put(one, sharding, may_alias=False))
