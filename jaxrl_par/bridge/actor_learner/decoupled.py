"""A learner that adds unrolls when they come, and learns meanwhile from what it has."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxrl_par import loops
from jaxrl_par.axis import Axis
from jaxrl_par.bridge.actor_learner.learner import Batch, MeshLearner, own, shared
from jaxrl_par.bridge.reports import Tally
from jaxrl_par.loops import Learner, Run
from jaxrl_par.types import Metrics, Trajectory


class DecoupledLearner(MeshLearner):
    """Adds any number of batches, none included, before each update.

    Two programs in place of one; a batch for each update is the update of the other.
    """

    def __init__(self, learner: Learner, mesh: Mesh, axis: Axis, tally: Tally):
        super().__init__(learner, mesh, axis, tally)
        kept = learner.kept
        assert kept is not None
        add, go_on = loops.add_from(kept, axis), loops.go_on(kept, axis)

        def added(run: Run, trajectory: Trajectory) -> Run:
            return shared(add(own(run), trajectory))

        def gone_on(run: Run) -> tuple[Run, Metrics, Any]:
            run, metrics, ready = go_on(own(run))
            return shared(run), metrics, ready

        specs = self._run_specs
        self._add = self._on_mesh(added, in_specs=(specs, self._specs), out_specs=specs)
        self._go_on = self._on_mesh(
            gone_on, in_specs=(specs,), out_specs=(specs, P(), P())
        )
        self._is_ready = jax.jit(jax.vmap(kept.ready))
        self._compiled_add: Callable | None = None
        self._compiled_go_on: Callable | None = None
        self.ready = False

    def look(self, run: Run) -> None:
        self.ready = bool(np.all(self._is_ready(run.local)))

    def is_compiled(self, batches: Sequence[Batch]) -> bool:
        add = self._compiled_add is not None or not batches
        return add and self._compiled_go_on is not None

    def compile(self, run: Run, batches: Sequence[Batch]) -> None:
        started = time.perf_counter()
        if self._compiled_go_on is None:
            lowered = jax.jit(self._go_on, donate_argnums=0).lower(run)
            self._compiled_go_on = lowered.compile()
        # A run that goes on may do so without a new batch.
        if self._compiled_add is None and batches:
            first = batches[0].trajectory
            lowered = jax.jit(self._add, donate_argnums=0).lower(run, first)
            self._compiled_add = lowered.compile()
        self._tally.compile_seconds += time.perf_counter() - started

    def update(self, run: Run, batches: Sequence[Batch]) -> tuple[Run, Metrics, Any]:
        if not self.is_compiled(batches):
            self.compile(run, batches)
        assert self._compiled_go_on is not None
        for batch in batches:
            assert self._compiled_add is not None
            run = self._compiled_add(run, batch.trajectory)
        # Waiting for all of it: see `MeshLearner.update`.
        run, metrics, ready = jax.block_until_ready(self._compiled_go_on(run))
        self.ready = bool(ready)
        return run, metrics, ()
