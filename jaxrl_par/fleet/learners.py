"""The driver's side of learners in processes: told to advance, and what came of it."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.fleet.arrays import on_host, own
from jaxrl_par.fleet.cluster import LostError
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.learner_processes import LearnerProcesses
from jaxrl_par.fleet.peers import Advanced, Begun, Known, PeerProcess
from jaxrl_par.loops import Engine, Run
from jaxrl_par.loops.peers import mean_state
from jaxrl_par.types import Mean, Metrics, PRNGKey


class LearnerFleetEngine(Engine):
    """Each learner in a process of its own; leaves of a run are [N, ...].

    What a learner has is in its process: a run that is given to `advance` is where they
    are, or was given to `resume`. One that is lost is missed until the end, and then
    has in the run the mean of the others.
    """

    def __init__(
        self, make: Callable[..., Any], parts: tuple[Any, ...], num_learners: int,
        fleet: FleetConfig, patience: float,
    ):  # fmt: skip
        """
        Args:
          make: (key, *parts) -> a `Peer`
          patience: seconds without a sign of a process after which it is taken for
            lost.
        """
        self._parts = make, parts
        self._size = num_learners
        self._fleet = fleet
        self._patience = patience
        self._resources = ExitStack()
        self._processes: LearnerProcesses | None = None
        self._compile_seconds = 0.0
        self._last: list[Run] = []

    @property
    def compile_seconds(self) -> float:
        return self._compile_seconds

    @property
    def living(self) -> list[int]:
        """Learners that are not lost."""
        return self._processes.living if self._processes else []

    def init(self, key: PRNGKey) -> Run:
        """Starts all processes, and in each of them a learner of a new run.

        Raises:
          RuntimeError: there is a run.
          RefusedError, DeadlineError, LostError: as `LearnerProcesses`.
        """
        if self._processes:
            raise RuntimeError("an engine has one run: make another engine for another")
        given = self._size, self._fleet, self._patience, self._resources
        processes = LearnerProcesses(PeerProcess, *self._parts, key, *given)
        self._processes = processes
        processes.start()
        names = processes.names
        known = lambda i: (Known(names, i, self._patience),)  # noqa: E731
        begun: dict[int, Begun] = processes.asked(
            "begin", known, self._fleet.start_seconds
        )
        processes.refuse_losses()
        self._compile_seconds = max(x.compile_seconds for x in begun.values())
        self._last = [own(begun[i].run) for i in range(self._size)]
        return stacked(self._last)

    def resume(self, run: Run) -> None:
        assert self._processes is not None
        runs = apart(run, self._size)
        self._processes.asked("resume", lambda i: (on_host(runs[i]),))
        self._processes.refuse_losses()
        self._last = runs

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """As `Engine.advance`. Learners that are lost meanwhile are told of.

        Raises:
          LostError: none is left.
        """
        processes = self._processes
        assert processes is not None
        before = processes.living
        given = lambda i: (num_updates,)  # noqa: E731
        found: dict[int, Advanced] = processes.asked("advance", given)
        if not found:
            raise LostError(f"all {self._size} learners are lost. {processes.told()}")
        for i in sorted(set(before) - set(found)):
            told = f"{len(found)} of {self._size} go on without it"
            why = processes.why[i]
            warnings.warn(f"learner {i} is lost: {told}. {why}", stacklevel=2)
        living = {i: own(x.run) for i, x in found.items()}
        self._last = [
            living[i] if i in living else missing(self._last[i], list(living.values()))
            for i in range(self._size)
        ]
        columns = [found.get(i) for i in range(self._size)]
        metrics = _metrics([None if x is None else x.metrics for x in columns])
        return stacked(self._last)._replace(settings=run.settings), metrics

    def record(self, path: Path) -> None:
        """Does nothing: who meets whom is known beforehand."""

    def report(self) -> None:
        """None: what learners wait for is in the metrics."""

    def close(self) -> None:
        self._resources.close()


def stacked(runs: Sequence[Run]) -> Run:
    """Leaves [N, ...]. Strong types, as those that come from a file."""
    return jax.tree.map(lambda *xs: jnp.stack(xs), *runs)


def apart(run: Run, num_learners: int) -> list[Run]:
    """The inverse of `stacked`."""
    return [jax.tree.map(lambda x, i=i: x[i], run) for i in range(num_learners)]


def missing(last: Run, living: Sequence[Run]) -> Run:
    """A learner that is lost, as it would go on: with the mean of the others, in the
    environments that it was seen in last."""
    mean = mean_state(
        jax.tree.map(lambda *xs: jnp.stack(xs), *[x.learner for x in living])
    )
    progress = last.progress._replace(updates=living[0].progress.updates)
    return last._replace(learner=mean, progress=progress)


def _metrics(columns: list[list[Metrics] | None]) -> Metrics:
    """Of K updates, [K, N]. One who is lost counts nothing, and has no numbers."""
    other = next(x for x in columns if x is not None)
    nobody = [{name: none_of(x) for name, x in row.items()} for row in other]
    whole = [nobody if x is None else x for x in columns]
    rows = [
        jax.tree.map(lambda *xs: np.stack(xs), *row) for row in zip(*whole, strict=True)
    ]
    return jax.tree.map(lambda *xs: np.stack(xs), *rows)


def none_of(value: Any) -> Any:
    if isinstance(value, Mean):
        return Mean(0 * value.total, 0 * value.count)
    value = np.asarray(value)
    return np.full_like(value, np.nan if value.dtype.kind == "f" else 0)
