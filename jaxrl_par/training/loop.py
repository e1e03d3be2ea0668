"""Chunk after chunk of updates, and what happens between them."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_par.hosts.collective import (
    alone,
    border,
    fetched,
    last_border,
    said_by_first,
)
from jaxrl_par.loops import Engine, Run
from jaxrl_par.measured import Metric
from jaxrl_par.training import rows
from jaxrl_par.training.budget import Budget
from jaxrl_par.training.checkpoints import Checkpoints
from jaxrl_par.training.directory import RunDirectory
from jaxrl_par.training.display import Show
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.following import NoCheckpoints, NoLines
from jaxrl_par.training.interrupts import Interrupted, Signals
from jaxrl_par.training.rows import JsonLines, Sink
from jaxrl_par.training.settings import TrainingConfig
from jaxrl_par.types import Metrics

METRICS = {
    "seconds": Metric(
        "seconds", "of training since the run began, with those before it was resumed"
    ),
    "steps_per_second": Metric("environment steps per second", "since the row before"),
}

Evaluate = Callable[[Run], Mapping[str, Any]]
"""Numbers by name, such as `evaluation_return`; of a population, lists of them."""

_SCORE = "evaluation_return"
"""The result by which runs are compared; the first where none has that name."""


class DivergedError(TrainingError):
    """No gradient was finite for too long."""


class Loop(NamedTuple):
    """Chunk after chunk, and what happens between them."""

    settings: TrainingConfig
    budget: Budget
    engine: Engine
    directory: RunDirectory
    store: Checkpoints | NoCheckpoints
    sinks: Sequence[Sink]
    lines: JsonLines | NoLines
    show: Show
    signals: Signals

    def advance(self, run: Run, evaluate: Evaluate | None) -> Run:
        row, saved = progress(run), time.monotonic()
        while self.budget.fraction(row) < 1:
            watch = _Stopwatch(self.engine)
            try:
                self.signals.raise_for(border(self.signals() or 0))
                run, measured = self.engine.advance(run, self._length(row))
                row = self._row(row, run, measured, watch.seconds())
                results = self._evaluated(run, row["updates"], evaluate)
                row = rows.joined(row, results)
                self._log(row)
                self._check_finite(run, row["updates"])
                if self._is_due(row, time.monotonic() - saved):
                    self._flush()
                    self._save(run)
                    saved = time.monotonic()
            except BaseException as error:
                if rescued := self.engine.rescue():
                    run, measured = rescued
                    row = self._row(row, run, measured, watch.seconds())
                self._keep(run, row, error)
                raise
        last_border()
        return run

    def _is_due(self, row: rows.Row, seconds: float) -> bool:
        """Whether to save, so many seconds after it was done before."""
        interval = self.settings.checkpoint_interval
        counted = interval > 0 and row["updates"] % interval == 0
        minutes = self.settings.checkpoint_minutes
        # No two processes have the same clock.
        late = minutes > 0 and said_by_first(60 * minutes <= seconds)
        return self.budget.fraction(row) == 1 or counted or late

    def _length(self, done: Mapping[str, int]) -> int:
        """Updates of the next chunk. One that an error has cut short is completed, so
        that later ones are where they would have been."""
        length = self.settings.log_interval
        length -= done["updates"] % length
        left = self.budget.left(done)
        return length if left is None else min(length, left)

    def _evaluated(
        self, run: Run, updates: int, evaluate: Evaluate | None
    ) -> rows.Results:
        interval = self.settings.evaluation_interval
        if not (evaluate and interval and updates % interval == 0):
            return {}
        with self.signals.answered_at_once(lambda: self._write(run)):
            results = rows.results(evaluate(run))
        self.keep_best(run, results)
        return results

    def keep_best(self, run: Run, results: rows.Results) -> None:
        """Keeps the run if no evaluation before was as good."""
        if not self.settings.keep_best or not results or skipped_in_a_row(run):
            return
        score = rows.scalar(results.get(_SCORE, next(iter(results.values()))))
        if score is None:
            return
        with self.signals.saving:
            self.directory.come_back()
            self.store.save_best(progress(run)["updates"], run, score)

    def _row(
        self, old: Mapping[str, int], run: Run, measured: Metrics, seconds: float
    ) -> rows.Row:
        new = progress(run)
        known = self.lines.rows
        before = known[-1].get("seconds", 0.0) if known else 0.0
        row: rows.Row = {
            **new,
            "seconds": before + seconds,
            "steps_per_second": (new["env_steps"] - old["env_steps"]) / seconds,
        }
        if report := self.engine.report():
            row |= report.row()
        return rows.joined(row, rows.summarize(measured))

    def _log(self, row: rows.Row) -> None:
        for sink in self.sinks:
            sink.write(row)
        self.show(self.budget.fraction(row), row)

    def _flush(self) -> None:
        for sink in self.sinks:
            sink.flush()

    def _save(self, run: Run) -> None:
        # After bad gradients the state may be spoilt, and after a failed update gone.
        if not is_donated(run) and skipped_in_a_row(run) == 0:
            with self.signals.saving:
                self._write(run)

    def _write(self, run: Run) -> None:
        self.directory.come_back()
        self.store.save(progress(run)["updates"], run)

    def _keep(self, run: Run, row: rows.Row, error: BaseException) -> None:
        """Logs and saves what is whole when a signal or an error ends training."""
        if isinstance(error, DivergedError):
            return  # which says what there is
        if not (alone() or isinstance(error, Interrupted)):
            return  # others would have to save with this one
        updates, logged = row["updates"], [x["updates"] for x in self.lines.rows[-1:]]
        is_new = "seconds" in row and logged != [updates]
        log = [lambda: self._log(row), self._flush] if is_new else []
        for keep in (*log, lambda: self._save(run)):
            try:
                keep()
            # The first error is the one to be raised.
            except Exception as another:
                print(f"of update {updates:,} something was not written: {another}")
        number = asked_by(error, self.signals)
        how = f"{number.name}: stopped" if number else "ended by an error"
        print(f"{how} at update {updates:,}. {self.store.described()}")

    def _check_finite(self, run: Run, updates: int) -> None:
        skipped = skipped_in_a_row(run)
        if skipped >= self.settings.max_skipped_in_a_row:
            raise DivergedError(
                "gradients were not finite, and so not applied, in each of updates"
                f" {updates - skipped + 1} to {updates}: see the last rows of"
                f" {self.lines.path}. A smaller learning rate may help. The last good"
                f" checkpoint is that of update {self.store.steps[-1]}, in"
                f" {self.store.directory}"
            )


class _Stopwatch:
    """Seconds from now on, without compilation."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._started = self._now()

    def seconds(self) -> float:
        return self._now() - self._started

    def _now(self) -> float:
        return time.perf_counter() - self._engine.compile_seconds


def asked_by(error: BaseException, signals: Signals) -> signal.Signals | None:
    """The signal, if any, that led to the error."""
    # Of processes that end, only the pipes tell, and perhaps before our own signal.
    broken = isinstance(error, OSError | EOFError | KeyboardInterrupt)
    return signals.soon() if broken else signals()


def progress(run: Run) -> dict[str, int]:
    """`updates`, of a population those of a member that goes on, and `env_steps` of
    all."""
    updates = fetched(run.progress.updates)
    each = np.int64(1_000_000) * np.asarray(updates.millions) + updates.units
    env_steps = rows.total(run.progress.env_steps)
    return {"updates": int(np.max(each)), "env_steps": env_steps}


def is_donated(run: Run) -> bool:
    """Whether its memory was given to an update that failed."""
    arrays = [x for x in jax.tree.leaves(run) if isinstance(x, jax.Array)]
    return any(x.is_deleted() for x in arrays)


def skipped_in_a_row(run: Run) -> int:
    """The fewest of any member: a population goes on while one of them learns."""
    return int(np.min(fetched(run.progress.skipped_in_a_row)))
