"""The engine of a compiled program."""

import time
from collections.abc import Callable
from pathlib import Path

import jax

from jaxrl_par.loops import Engine, Program, Run
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.types import Metrics, PRNGKey


class Compiled(Engine):
    """A program whose updates are scanned in one call, which donates the run."""

    def __init__(self, program: Program):
        self._compile_seconds = 0.0
        self._program = program
        self._chunks: dict[int, Callable[[Run], tuple[Run, Metrics]]] = {}

    @property
    def compile_seconds(self) -> float:
        return self._compile_seconds

    def init(self, key: PRNGKey) -> Run:
        def init(key: PRNGKey) -> Run:
            run = self._program.init(key)
            return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), run)

        started = time.perf_counter()
        compiled = jax.jit(init).lower(key).compile()
        self._compile_seconds += time.perf_counter() - started
        return jax.block_until_ready(compiled(key))

    def resume(self, run: Run) -> None:
        """Does nothing: all is in the run."""

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        if num_updates not in self._chunks:
            self._chunks[num_updates] = self._compile(num_updates, run)
        return jax.block_until_ready(self._chunks[num_updates](run))

    def record(self, path: Path) -> None:
        """Does nothing: there is no schedule to record."""

    def report(self) -> None:
        """None: a compiled program has no threads."""

    def close(self) -> None:
        """Does nothing: there is nothing to free."""

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
        self._compile_seconds += time.perf_counter() - started
        return compiled
