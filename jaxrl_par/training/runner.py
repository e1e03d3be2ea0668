"""Training a program: chunks of updates, and between them all that a host does.

A chunk is `log_interval` updates in one call. Between two chunks the runner logs, saves
and answers signals. The division into chunks is the same in a run that was stopped and
resumed, so that both compute the same bits.
"""

import math
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
from jaxrl_par.training.interrupts import EXIT_CODES, Interrupted, interrupts
from jaxrl_par.training.metrics import JsonLines, Sink, TensorBoard
from jaxrl_par.training.plots import LiveCurve
from jaxrl_par.training.sessions import keeps_sessions
from jaxrl_par.training.settings import TrainingConfig
from jaxrl_par.training.summary import (
    Summary,
    latest_return,
    peak_memory_bytes,
    xla_threads,
)
from jaxrl_par.training.words import option
from jaxrl_par.types import PRNGKey

Evaluate = Callable[[Run], dict[str, float]]
"""Results by name, such as `evaluation_return`."""


_SCORE = "evaluation_return"
"""The result by which runs are compared; the first where none has that name."""


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
    """
    refuse(settings)
    budget = _budget(num_updates, total_env_steps, steps_per_update)
    engine = _engine(program, settings.log_interval)
    directory = open_directory(args, settings, default_name, extends)
    same, keep = identity(args, settings, extends), settings.keep_checkpoints
    with (
        directory,
        Checkpoints(directory.checkpoints, same, keep) as store,
        interrupts(store.described) as stop,
        _engine_errors(engine),
    ):
        engine.record(directory.schedule)
        run, resumed = _start(engine, store, directory, key)
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
            loop = _Loop(settings, budget, engine, store, sinks, lines, show)
            run = loop.advance(run, evaluate, stop)
        results = loop.evaluated(run, evaluate) if evaluate else {}
        summary = _summarize(run, lines, engine, results, directory.path.name)
        with harmless("the summary"):
            summary.save(directory.summary)
    print(f"{directory.path}:\n{summary.text()}")
    if report := engine.report():
        with harmless("the picture of the parallelism"):
            parallelism.draw(report, directory.parallelism)
        print(parallelism.text(report))
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

    def advance(self, run: Run, evaluate: Evaluate | None, stop: Callable) -> Run:
        fraction, saved = self.budget.fraction(_progress(run)), time.monotonic()
        while fraction < 1:
            run, row = self._chunk(run)
            updates, fraction = row["updates"], self.budget.fraction(row)
            interval = self.settings.evaluation_interval
            if evaluate and interval and updates % interval == 0:
                row |= self.evaluated(run, evaluate)
            for sink in self.sinks:
                sink.write(row)
            self.show(fraction, row)
            self._check_finite(run, updates)
            interval = self.settings.checkpoint_interval
            due = fraction == 1 or stop() or (interval and updates % interval == 0)
            minutes = self.settings.checkpoint_minutes
            due = due or 0 < 60 * minutes <= time.monotonic() - saved
            # After bad gradients the state may be spoilt.
            if due and _skipped_in_a_row(run) == 0:
                for sink in self.sinks:
                    sink.flush()
                self.store.save(updates, run)
                saved = time.monotonic()
            if (signal := stop()) and fraction < 1:
                stopped = f"{signal.name}: stopped at update {updates:,}"
                print(f"{stopped}. Go on with --resume")
                raise Interrupted(EXIT_CODES[signal])
        return run

    def evaluated(self, run: Run, evaluate: Evaluate) -> dict[str, float]:
        """Results of an evaluation, after which the best run so far is kept."""
        results = evaluate(run)
        if self.settings.keep_best and _skipped_in_a_row(run) == 0:
            score = results.get(_SCORE, next(iter(results.values())))
            self.store.save_best(_progress(run)["updates"], run, score)
        return results

    def _chunk(self, run: Run) -> tuple[Run, dict[str, Any]]:
        old, length = _progress(run), self.settings.log_interval
        # A run that ended within a chunk, and is then extended, ends that chunk first.
        length -= old["updates"] % length
        if (left := self.budget.left(old)) is not None:
            length = min(length, left)
        compiled = self.engine.compile_seconds
        started = time.perf_counter()
        run, measured = self.engine.advance(run, length)
        seconds = time.perf_counter() - started
        seconds -= self.engine.compile_seconds - compiled
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
        return run, row | metrics.summarize(measured)

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


@contextmanager
def _engine_errors(engine: Engine) -> Iterator[None]:
    """Closes the engine, and tells in a line what a user can do something about.

    Errors that an environment itself raised go on as they are, with their traceback.
    """
    try:
        yield
    except (BadRowError, DeadlineError, RecordError) as error:
        notes = getattr(error, "__notes__", [])
        raise TrainingError("\n".join([str(error), *notes])) from error
    except Interrupted:
        engine.close()
        if (report := engine.report()) and report.dropped_rows:
            print(
                f"{report.dropped_rows:,} rows were acted and not yet learned from:"
                " they were dropped"
            )
        raise
    finally:
        engine.close()


def _start(
    engine: Engine, store: Checkpoints, directory: RunDirectory, key: PRNGKey
) -> tuple[Run, bool]:
    """The run to train, and whether it was there before."""
    run = engine.init(key)
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
    if len(given) != 1 or given[0] < 1:
        raise ValueError(
            "train takes num_updates or total_env_steps, at least 1; got"
            f" {num_updates} and {total_env_steps}"
        )
    refuse(steps_per_update=steps_per_update)
    if num_updates is not None:
        return Budget("updates", num_updates, 1)
    return Budget("env_steps", given[0], steps_per_update)


def _progress(run: Run) -> dict[str, int]:
    """`updates`, the same for all members of a population, and `env_steps` of all."""
    updates = jax.tree.map(lambda x: jnp.ravel(x)[0], run.progress.updates)
    env_steps = metrics.total(run.progress.env_steps)
    return {"updates": int(updates), "env_steps": env_steps}


def _skipped_in_a_row(run: Run) -> int:
    """The fewest of any member: a population goes on while one of them learns."""
    return int(np.min(jax.device_get(run.progress.skipped_in_a_row)))


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
        evaluation=results,
    )
