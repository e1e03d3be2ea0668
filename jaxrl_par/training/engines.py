"""The engine of a compiled program."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxrl_par.hosts.collective import fetched
from jaxrl_par.loops import Engine, Program, Run
from jaxrl_par.types import Metrics, PRNGKey


class Compiled(Engine):
    """A program whose updates are one loop in one call, which donates the run."""

    def __init__(self, program: Program, chunk: int):
        """`chunk`: most updates of a call. Those with fewer are the same compiled loop,
        left earlier, so that the last call of a run compiles nothing.
        """
        self._compile_seconds = 0.0
        self._program = program
        self._chunk = chunk
        self._compiled: Callable[[Run, int], tuple[Run, Metrics]] | None = None

    @property
    def compile_seconds(self) -> float:
        return self._compile_seconds

    def init(self, key: PRNGKey) -> Run:
        def init(key: PRNGKey) -> Run:
            run = self._program.init(key)
            return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), run)

        return jax.block_until_ready(self._compile(jax.jit(init), key)(key))

    def resume(self, run: Run) -> None:
        """Does nothing: all is in the run."""

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """Raises ValueError for more updates than a chunk has."""
        if num_updates > self._chunk:
            raise ValueError(f"a chunk has {self._chunk} updates, got {num_updates}")
        if self._compiled is None:
            # Arrays stay where they are, or the next call would find them elsewhere.
            placed = (jax.tree.map(lambda x: x.sharding, run), None)
            function = jax.jit(self._call, donate_argnums=0, out_shardings=placed)
            self._compiled = self._compile(function, run, 0)
        run, metrics = jax.block_until_ready(self._compiled(run, num_updates))
        if num_updates == self._chunk:
            return run, metrics
        return run, jax.tree.map(lambda x: x[:num_updates], fetched(metrics))

    def record(self, path: Path) -> None:
        """Does nothing: there is no schedule to record."""

    def report(self) -> None:
        """None: a compiled program has no threads."""

    def close(self) -> None:
        """Does nothing: there is nothing to free."""

    def _call(self, run: Run, num_updates: Int[Array, ""]) -> tuple[Run, Metrics]:
        _, one = jax.eval_shape(self._program.step, run)
        empty = jax.tree.map(lambda x: jnp.zeros((self._chunk, *x.shape), x.dtype), one)

        def update(index, now):
            run, metrics = now
            run, new = self._program.step(run)
            return run, jax.tree.map(lambda x, y: x.at[index].set(y), metrics, new)

        return jax.lax.fori_loop(0, num_updates, update, (run, empty))

    def _compile(self, function: jax.stages.Wrapped, *args: Any) -> jax.stages.Compiled:
        started = time.perf_counter()
        compiled = function.lower(*args).compile()
        self._compile_seconds += time.perf_counter() - started
        return compiled
