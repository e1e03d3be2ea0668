"""Training a program: chunks of updates, and between them all that a host does.

A chunk is `log_interval` updates in one call. Between two chunks the runner logs, saves
and answers signals. The division into chunks is the same in a run that was stopped and
resumed, so that both compute the same bits.
"""

import math
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.bridge.supervision import DeadlineError
from jaxrl_par.envs.host.admission import BadRowError
from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.loops import Engine, Program, Run
from jaxrl_par.loops.records import RecordError
from jaxrl_par.training import metrics, parallelism
from jaxrl_par.training.checkpoints import CheckpointError, Checkpoints, state_hash
from jaxrl_par.training.decoration import Aside, WeightsAndBiases, harmless
from jaxrl_par.training.directory import (
    RunDirectory,
    identity,
    open_directory,
    recorded,
)
from jaxrl_par.training.display import Show, display
from jaxrl_par.training.engines import Compiled
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.interrupts import Interrupted, Signals, interrupts
from jaxrl_par.training.metrics import JsonLines, Sink, TensorBoard
from jaxrl_par.training.output import lasting_output
from jaxrl_par.training.plots import LiveCurve
from jaxrl_par.training.sessions import keeps_sessions
from jaxrl_par.training.settings import TrainingConfig
from jaxrl_par.training.summary import (
    Summary,
    latest_return,
    peak_memory_bytes,
    xla_threads,
)
from jaxrl_par.training.words import option, switch
from jaxrl_par.types import Metrics, PRNGKey

Evaluate = Callable[[Run], dict[str, float]]
"""Results by name, such as `evaluation_return`."""


_SCORE = "evaluation_return"
"""The result by which runs are compared; the first where none has that name."""


_MOST = 10**15


class DivergedError(TrainingError):
    """No gradient was finite for too long."""


class Trained(NamedTuple):
    """What training leaves."""

    run: Run
    summary: Summary
    directory: RunDirectory


class Budget(NamedTuple):
    """When training ends: at so many updates, or environment steps."""

    unit: Literal["updates", "env_steps"]
    amount: int
    per_update: int | None
    """The most of it that an update uses, where that is known."""

    def left(self, progress: Mapping[str, int]) -> int | None:
        """How many more updates there are at least; None if nothing is known."""
        missing = self.amount - progress[self.unit]
        return self.per_update and math.ceil(missing / self.per_update)

    def fraction(self, progress: Mapping[str, int]) -> float:
        """How much of it is used, from 0 to 1."""
        return min(progress[self.unit] / self.amount, 1.0)


@keeps_sessions()
def train(
    program: Program | Engine,
    args: Any,
    settings: TrainingConfig,
    *,
    key: PRNGKey,
    num_updates: int | None = None,
    total_env_steps: int | None = None,
    steps_per_update: int | None = None,
    evaluate: Evaluate | None = None,
    default_name: str = "run",
    extends: Collection[str] = (),
) -> Trained:
    """Trains to the end of the budget, and leaves a folder with all about it.

    Args:
      program: a compiled program, or an engine as `topologies.threads` makes it.
      args: all else that decides what is learned, to be kept in `config.json`: a
        dataclass, a mapping or None; it may have the settings in it. To resume, that of
        the run.
      key: starts a new run; that of a resumed run is in its checkpoint.
      num_updates: steps of the program. The last chunk may be shorter.
      total_env_steps: in its place; training ends with the chunk that reaches it.
      steps_per_update: the most environment steps that an update can have. With it
        training ends with the very update that reaches `total_env_steps`.
      evaluate: called every `evaluation_interval` updates and at the end.
      default_name: name of the folder, where the settings have none.
      extends: fields of `args` that only say how long to train: to resume with more is
        to train on. (With a rate that is annealed to the end, such a field is more.)

    Raises:
      ValueError: settings or a count are out of range; there is not just one budget.
      TrainingError: the folder or a checkpoint cannot be used, the disk is full, or
        (`DivergedError`) gradients stay not finite.
      Interrupted: a signal came; the run was saved.
      Exception: whatever an environment, an evaluation or the program raised. What was
        whole of the run is saved, and `resume` goes on from there.
    """
    refuse(settings)
    budget = _budget(num_updates, total_env_steps, steps_per_update)
    engine = _engine(program, settings.log_interval)
    directory = open_directory(args, settings, default_name, extends)
    same, keep = identity(args, settings), settings.keep_checkpoints
    with (
        lasting_output(),
        directory,
        Checkpoints(directory.checkpoints, same, keep, extends=extends) as store,
        interrupts(store.described) as signals,
        _engine_errors(engine, signals),
    ):
        engine.record(directory.schedule)
        run, resumed = _start(engine, store, directory, key, signals)
        progress = _progress(run)
        if budget.fraction(progress) == 1 and directory.summary.exists():
            summary = Summary.read(directory.summary)
            print(f"{directory.path} is finished:\n{summary.text()}")
            return Trained(run, summary, directory)
        lines = JsonLines(directory.metrics, progress["updates"])
        sinks = _sinks(lines, directory, args, settings, run, resumed)
        with ExitStack() as stack, display(directory.path.name) as show:
            for sink in sinks:
                stack.enter_context(closing(sink))
            loop = _Loop(settings, budget, engine, store, sinks, lines, show, signals)
            run = loop.advance(run, evaluate)
        results = _final_results(run, evaluate, signals)
        loop.keep_best(run, results)
        engine.close()
        summary = _summarize(run, lines, engine, results, directory.path.name)
        with harmless("the summary"):
            summary.save(directory.summary)
        _show_end(summary, engine, directory)
        signals.raise_any()
    return Trained(run, summary, directory)


def _engine(program: Program | Engine, chunk: int) -> Engine:
    if isinstance(program, Program):
        return Compiled(program, chunk)
    if isinstance(program, Engine):
        return program
    raise RefusedError(
        "program must be a Program or an Engine, as the functions of `topologies`"
        f" return them, got {type(program).__name__}"
    )


class _Loop(NamedTuple):
    """Chunk after chunk, and what happens between them."""

    settings: TrainingConfig
    budget: Budget
    engine: Engine
    store: Checkpoints
    sinks: Sequence[Sink]
    lines: JsonLines
    show: Show
    signals: Signals

    def advance(self, run: Run, evaluate: Evaluate | None) -> Run:
        row, saved = _progress(run), time.monotonic()
        while self.budget.fraction(row) < 1:
            watch = _Stopwatch(self.engine)
            try:
                self.signals.raise_any()
                run, measured = self.engine.advance(run, self._length(row))
                row = self._row(row, run, measured, watch.seconds())
                row |= self._evaluated(run, row["updates"], evaluate)
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
        return run

    def _is_due(self, row: metrics.Row, seconds: float) -> bool:
        """Whether to save, so many seconds after it was done before."""
        interval = self.settings.checkpoint_interval
        counted = interval > 0 and row["updates"] % interval == 0
        late = 0 < 60 * self.settings.checkpoint_minutes <= seconds
        return self.budget.fraction(row) == 1 or counted or late

    def _length(self, progress: Mapping[str, int]) -> int:
        """Updates of the next chunk. One that an error has cut short is completed, so
        that later ones are where they would have been."""
        length = self.settings.log_interval
        length -= progress["updates"] % length
        left = self.budget.left(progress)
        return length if left is None else min(length, left)

    def _evaluated(
        self, run: Run, updates: int, evaluate: Evaluate | None
    ) -> dict[str, metrics.Value]:
        interval = self.settings.evaluation_interval
        if not (evaluate and interval and updates % interval == 0):
            return {}
        with self.signals.answered_at_once(lambda: self._write(run)):
            results = evaluate(run)
        self.keep_best(run, results)
        return {name: metrics.finite(x) for name, x in results.items()}

    def keep_best(self, run: Run, results: Mapping[str, float]) -> None:
        """Keeps the run if no evaluation before was as good."""
        if not self.settings.keep_best or not results or _skipped_in_a_row(run):
            return
        score = results.get(_SCORE, next(iter(results.values())))
        with self.signals.saving:
            self.store.save_best(_progress(run)["updates"], run, score)

    def _row(
        self, old: Mapping[str, int], run: Run, measured: Metrics, seconds: float
    ) -> metrics.Row:
        new = _progress(run)
        rows = self.lines.rows
        before = rows[-1].get("seconds", 0.0) if rows else 0.0
        row: metrics.Row = {
            **new,
            "seconds": before + seconds,
            "steps_per_second": (new["env_steps"] - old["env_steps"]) / seconds,
        }
        if report := self.engine.report():
            row |= report.row()
        return row | metrics.summarize(measured)

    def _log(self, row: metrics.Row) -> None:
        for sink in self.sinks:
            sink.write(row)
        self.show(self.budget.fraction(row), row)

    def _flush(self) -> None:
        for sink in self.sinks:
            sink.flush()

    def _save(self, run: Run) -> None:
        # After bad gradients the state may be spoilt, and after a failed update gone.
        if not _is_donated(run) and _skipped_in_a_row(run) == 0:
            with self.signals.saving:
                self._write(run)

    def _write(self, run: Run) -> None:
        self.store.save(_progress(run)["updates"], run)

    def _keep(self, run: Run, row: metrics.Row, error: BaseException) -> None:
        """Logs and saves what is whole when a signal or an error ends training."""
        if isinstance(error, DivergedError):
            return  # which says what there is
        updates, logged = row["updates"], [x["updates"] for x in self.lines.rows[-1:]]
        is_new = "seconds" in row and logged != [updates]
        log = [lambda: self._log(row), self._flush] if is_new else []
        for keep in (*log, lambda: self._save(run)):
            try:
                keep()
            # The first error is the one to be raised.
            except Exception as another:
                print(f"of update {updates:,} something was not written: {another}")
        number = _asked_by(error, self.signals)
        how = f"{number.name}: stopped" if number else "ended by an error"
        print(f"{how} at update {updates:,}. {self.store.described()}")

    def _check_finite(self, run: Run, updates: int) -> None:
        skipped = _skipped_in_a_row(run)
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


@contextmanager
def _engine_errors(engine: Engine, signals: Signals) -> Iterator[None]:
    """Closes the engine, and tells in a line what a user can do something about.

    Errors that an environment itself raised go on as they are, with their traceback;
    those that came because a signal ended an environment's process are that signal.
    """
    try:
        yield
    except TrainingError:
        raise
    except (Exception, KeyboardInterrupt, Interrupted) as error:
        engine.close()
        number = _asked_by(error, signals)
        if (report := engine.report()) and number and report.dropped_rows:
            print(
                f"{report.dropped_rows:,} rows were acted and not yet learned from:"
                " they were dropped"
            )
        if number and not isinstance(error, Interrupted):
            raise Interrupted(number) from error
        if isinstance(error, BadRowError | DeadlineError | RecordError):
            notes = getattr(error, "__notes__", [])
            raise TrainingError("\n".join([str(error), *notes])) from error
        raise
    finally:
        engine.close()


def _asked_by(error: BaseException, signals: Signals) -> signal.Signals | None:
    """The signal, if any, that led to the error."""
    # Of processes that end, only the pipes tell, and perhaps before our own signal.
    broken = isinstance(error, OSError | EOFError | KeyboardInterrupt)
    return signals.soon() if broken else signals()


def _start(
    engine: Engine,
    store: Checkpoints,
    directory: RunDirectory,
    key: PRNGKey,
    signals: Signals,
) -> tuple[Run, bool]:
    """The run to train, and whether it was there before."""
    try:
        # There is nothing yet that could be lost.
        with signals.answered_at_once(lambda: None):
            run = engine.init(key)
    except Interrupted as ended:
        print(f"{ended.number.name}: stopped before training. {store.described()}")
        raise
    if restored := store.restore(run):
        updates = _progress(restored)["updates"]
        print(f"{directory.path}: resuming at update {updates:,}")
        engine.resume(restored)
        return restored, True
    if directory.metrics.exists() and directory.metrics.stat().st_size:
        raise CheckpointError(
            f"{directory.path} has metrics, but no checkpoint to resume from: its"
            f" checkpoints were removed. Start again under another {option('name')}"
        )
    # Something good to go back to, whatever happens in the first chunk.
    store.save(0, run)
    return run, False


def _sinks(
    lines: JsonLines,
    directory: RunDirectory,
    args: Any,
    settings: TrainingConfig,
    run: Run,
    resumed: bool,
) -> list[Sink]:
    curve = partial(LiveCurve, directory.curve, lines.rows)
    sinks: list[Sink] = [lines, Aside("curve.png", curve)]
    if settings.tensorboard:
        purge_step = _progress(run)["env_steps"] + 1 if resumed else None
        board = partial(TensorBoard, directory.tensorboard, purge_step)
        sinks.append(Aside("TensorBoard", board))
    if settings.wandb:
        path, config = directory.path, recorded(args, settings)
        make = partial(WeightsAndBiases, path, directory.wandb, config)
        sinks.append(Aside("W&B", make, patience=120.0))
    return sinks


def _budget(
    num_updates: int | None, total_env_steps: int | None, steps_per_update: int | None
) -> Budget:
    given = [x for x in (num_updates, total_env_steps) if x is not None]
    if len(given) != 1 or not _is_budget(given[0]):
        raise ValueError(
            f"train takes num_updates or total_env_steps, a whole number up to"
            f" {_MOST}, at least 1;"
            f" got {num_updates} and {total_env_steps}"
        )
    refuse(steps_per_update=steps_per_update)
    if num_updates is not None:
        return Budget("updates", num_updates, 1)
    return Budget("env_steps", given[0], steps_per_update)


def _is_budget(amount: Any) -> bool:
    # Counters have two int32, one for millions.
    whole = isinstance(amount, int | np.integer) and not isinstance(amount, bool)
    return bool(whole and 1 <= amount <= _MOST)


def _progress(run: Run) -> dict[str, int]:
    """`updates`, the same for all members of a population, and `env_steps` of all."""
    updates = jax.tree.map(lambda x: jnp.ravel(x)[0], run.progress.updates)
    env_steps = metrics.total(run.progress.env_steps)
    return {"updates": int(updates), "env_steps": env_steps}


def _is_donated(run: Run) -> bool:
    """Whether its memory was given to an update that failed."""
    arrays = [x for x in jax.tree.leaves(run) if isinstance(x, jax.Array)]
    return any(x.is_deleted() for x in arrays)


def _skipped_in_a_row(run: Run) -> int:
    """The fewest of any member: a population goes on while one of them learns."""
    return int(np.min(jax.device_get(run.progress.skipped_in_a_row)))


def _final_results(
    run: Run, evaluate: Evaluate | None, signals: Signals
) -> dict[str, float]:
    """Of a run that is saved: what a signal ends here, a resumed one does again."""
    try:
        with signals.answered_at_once(lambda: None):
            return evaluate(run) if evaluate else {}
    except Interrupted as ended:
        told = f"{ended.number.name}: trained, but not evaluated to the end"
        print(f"{told}. Go on with {switch('resume')}")
        raise


def _show_end(summary: Summary, engine: Engine, directory: RunDirectory) -> None:
    print(f"{directory.path}:\n{summary.text()}")
    if report := engine.report():
        with harmless("the picture of the parallelism"):
            parallelism.draw(report, directory.parallelism)
        print(parallelism.text(report))


def _summarize(
    run: Run, lines: JsonLines, engine: Engine, results: dict[str, float], name: str
) -> Summary:
    progress = _progress(run)
    seconds = lines.rows[-1].get("seconds", 0.0) if lines.rows else 0.0
    return Summary(
        name=name,
        **progress,
        episode_return=latest_return(lines.rows),
        steps_per_second=progress["env_steps"] / seconds if seconds else 0.0,
        seconds=seconds,
        compile_seconds=engine.compile_seconds,
        xla_threads=xla_threads(),
        peak_memory_bytes=peak_memory_bytes(),
        skipped=int(np.sum(jax.device_get(run.progress.skipped))),
        state_sha256=state_hash(run),
        evaluation={n: metrics.scalar(metrics.finite(x)) for n, x in results.items()},
    )
