"""What training drives: something that takes a run some updates further."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import jax

from jaxrl_par.bridge.report import Report
from jaxrl_par.bridge.store_report import StoreReport
from jaxrl_par.loops import Program, Run
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.types import Metrics, PRNGKey


@runtime_checkable
class Engine(Protocol):
    """A way of running; `topologies.threads` makes another one than `Compiled`."""

    @property
    def compile_seconds(self) -> float:
        """Time that compiling took until now."""
        ...

    def init(self, key: PRNGKey) -> Run:
        """A new run. Its leaves have strong types, as those that come from a file."""
        ...

    def resume(self, run: Run) -> None:
        """Takes what is outside the run to where a restored run was saved."""
        ...

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """So many updates, done when it returns; metrics are stacked [num_updates]."""
        ...

    def record(self, path: Path) -> None:
        """Where to write the schedule, if it is one that can be repeated from there."""
        ...

    def report(self) -> Report | StoreReport | None:
        """Where the time of threads went, None where there are none."""
        ...

    def close(self) -> None:
        """Frees threads and environments; a second call does nothing."""
        ...


class Compiled:
    """A program whose updates are scanned in one call, which donates the run."""

    def __init__(self, program: Program):
        self.compile_seconds = 0.0
        self._program = program
        self._chunks: dict[int, Callable[[Run], tuple[Run, Metrics]]] = {}

    def init(self, key: PRNGKey) -> Run:
        def init(key: PRNGKey) -> Run:
            run = self._program.init(key)
            return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), run)

        started = time.perf_counter()
        compiled = jax.jit(init).lower(key).compile()
        self.compile_seconds += time.perf_counter() - started
        return jax.block_until_ready(compiled(key))

    def resume(self, run: Run) -> None:
        """All is in the run."""

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        if num_updates not in self._chunks:
            self._chunks[num_updates] = self._compile(num_updates, run)
        return jax.block_until_ready(self._chunks[num_updates](run))

    def record(self, path: Path) -> None:
        """There is only one order."""

    def report(self) -> None:
        """A compiled program has no threads."""

    def close(self) -> None:
        """There is nothing to free."""

    def _compile(self, num_updates: int, run: Run):
        # Arrays stay where they are, or the next call would find them elsewhere.
        placed = jax.tree.map(lambda x: x.sharding, run)
        function = jax.jit(
            scanned(self._program, num_updates),
            donate_argnums=0,
            out_shardings=(placed, None),
        )
        started = time.perf_counter()
        compiled = function.lower(run).compile()
        self.compile_seconds += time.perf_counter() - started
        return compiled
