"""Training a program: chunks of updates, and between them all that a host does.

A chunk is `log_interval` updates in one call. Between two chunks the runner logs, saves
and answers signals. The division into chunks is the same in a run that was stopped and
resumed, so that both compute the same bits.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.bridge.supervision import DeadlineError
from jaxrl_par.envs.host.unrolls import BadRowError
from jaxrl_par.errors import refuse
from jaxrl_par.loops import Engine, Program, Run
from jaxrl_par.loops.records import RecordError
from jaxrl_par.training import parallelism
from jaxrl_par.training.checkpoints import CheckpointError, Checkpoints, state_hash
from jaxrl_par.training.comparison import to_json
from jaxrl_par.training.directory import RunDirectory, identity, open_directory
from jaxrl_par.training.display import Display, display
from jaxrl_par.training.engines import Compiled
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.interrupts import EXIT_CODES, Interrupted, interrupts
from jaxrl_par.training.metrics import (
    JsonLines,
    Sink,
    Sinks,
    TensorBoard,
    WeightsAndBiases,
    summarize,
    total,
)
from jaxrl_par.training.plots import LiveCurve
from jaxrl_par.training.settings import TrainingConfig
from jaxrl_par.training.summary import (
    Summary,
    latest_return,
    peak_memory_bytes,
    read_summary,
)
from jaxrl_par.types import PRNGKey

Evaluate = Callable[[Run], dict[str, float]]
"""Results by name, such as `evaluation_return`."""


class DivergedError(TrainingError):
    """No gradient was finite for too long."""


class Trained(NamedTuple):
    """What training leaves."""

    run: Run
    summary: Summary
    directory: RunDirectory


class Budget(NamedTuple):
    """When training ends: at so many updates, or environment steps."""

    updates: int | None
    env_steps: int | None
    steps_per_update: int | None = None
    """The most environment steps of an update, where that is known."""

    def left(self, updates: int, env_steps: int) -> int | None:
        """How many more updates there are at least; None if nothing is known."""
        if self.updates is not None:
            return self.updates - updates
        assert self.env_steps is not None
        if self.steps_per_update is None:
            return None
        return math.ceil((self.env_steps - env_steps) / self.steps_per_update)

    def fraction(self, updates: int, env_steps: int) -> float:
        """How much of it is used, from 0 to 1."""
        if self.updates is not None:
            return min(updates / self.updates, 1.0)
        assert self.env_steps is not None
        return min(env_steps / self.env_steps, 1.0)


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
) -> Trained:
    """Trains to the end of the budget, and leaves a folder with all about it.

    Args:
      program: a compiled program, or an engine as `topologies.threads` makes it.
      args: the whole config, of which `settings` is a field. A run is resumed only with
        the config it has.
      key: starts a new run; that of a resumed run is in its checkpoint.
      num_updates: steps of the program. The last chunk may be shorter.
      total_env_steps: in place of `num_updates`; training ends with the chunk that
        reaches it.
      steps_per_update: the most environment steps that an update can have. With it
        training ends with the very update that reaches `total_env_steps`.
      evaluate: called every `evaluation_interval` updates and at the end.
      default_name: name of the folder, where the settings have none.

    Raises:
      ValueError: not exactly one budget of at least 1 is given, or a
        `steps_per_update` that is below 1.
      TrainingError: the folder or a checkpoint cannot be used, the disk is full, or
        (`DivergedError`) gradients stay not finite.
      Interrupted: a signal came; the run was saved.
    """
    budget = _budget(num_updates, total_env_steps, steps_per_update)
    directory = open_directory(args, settings, default_name)
    store = Checkpoints(
        directory.checkpoints, identity(args, settings), settings.keep_checkpoints
    )
    engine = _engine(program, settings)
    with interrupts(store.described) as stop, store, _engine_errors(engine):
        engine.record(directory.schedule)
        run, resumed = _start(engine, store, directory, key)
        if resumed and (summary := _finished(budget, run, directory)):
            return Trained(run, summary, directory)
        lines = JsonLines(directory.metrics, _progress(run)[0])
        with (
            Sinks(_sinks(lines, directory, args, settings, run, resumed)) as sinks,
            display(directory.path.name) as shown,
        ):
            loop = _Loop(settings, budget, engine, store, sinks, lines, shown)
            run = loop.advance(run, evaluate, stop)
        results = evaluate(run) if evaluate else {}
        summary = _summarize(run, lines, engine, results, directory.path.name)
        summary.save(directory.summary)
    print(f"{directory.path}:\n{summary.text()}")
    if report := engine.report():
        parallelism.draw(report, directory.parallelism)
        print(parallelism.text(report))
    return Trained(run, summary, directory)


def _engine(program: Program | Engine, settings: TrainingConfig) -> Engine:
    if isinstance(program, Program):
        return Compiled(program, settings.log_interval)
    return program


def _finished(budget: Budget, run: Run, directory: RunDirectory) -> Summary | None:
    """The summary of a run with nothing left to do, which is shown."""
    if budget.fraction(*_progress(run)) < 1 or not directory.summary.exists():
        return None
    summary = read_summary(directory.summary)
    print(f"{directory.path} is finished:\n{summary.text()}")
    return summary


class _Loop(NamedTuple):
    """Chunk after chunk, and what happens between them."""

    settings: TrainingConfig
    budget: Budget
    engine: Engine
    store: Checkpoints
    sinks: Sinks
    lines: JsonLines
    display: Display

    def advance(self, run: Run, evaluate: Evaluate | None, stop: Callable) -> Run:
        """Trains to the end of the budget."""
        while self.budget.fraction(*_progress(run)) < 1:
            run, row = self._chunk(run)
            updates, interval = row["updates"], self.settings.evaluation_interval
            if evaluate and interval and updates % interval == 0:
                row |= evaluate(run)
            self.sinks.write(row)
            self.display.show(self.budget.fraction(updates, row["env_steps"]), row)
            self._check_finite(run, updates)
            interval = self.settings.checkpoint_interval
            finished = self.budget.fraction(updates, row["env_steps"]) == 1
            if finished or stop() or (interval and updates % interval == 0):
                self._save(run, updates)
            if (signal := stop()) and not finished:
                print(
                    f"{signal.name}: stopped at update {updates:,}. Go on with --resume"
                )
                raise Interrupted(EXIT_CODES[signal])
        return run

    def _chunk(self, run: Run) -> tuple[Run, dict[str, Any]]:
        """The next updates, and their row."""
        updates, env_steps = _progress(run)
        length = self.settings.log_interval
        if (left := self.budget.left(updates, env_steps)) is not None:
            length = min(length, left)
        compiled = self.engine.compile_seconds
        started = time.perf_counter()
        run, metrics = self.engine.advance(run, length)
        seconds = time.perf_counter() - started
        seconds -= self.engine.compile_seconds - compiled
        updates, new_env_steps = _progress(run)
        before = self.lines.rows[-1]["seconds"] if self.lines.rows else 0.0
        row = {
            "updates": updates,
            "env_steps": new_env_steps,
            "seconds": before + seconds,
            "steps_per_second": (new_env_steps - env_steps) / seconds,
        }
        if report := self.engine.report():
            row |= report.row()
        return run, row | summarize(metrics)

    def _save(self, run: Run, updates: int) -> None:
        """Saves, unless the latest gradients were bad: the state may be spoilt."""
        if _skipped_in_a_row(run) == 0:
            self.sinks.flush()
            self.store.save(updates, run)

    def _check_finite(self, run: Run, updates: int) -> None:
        skipped = _skipped_in_a_row(run)
        if skipped >= self.settings.max_skipped_in_a_row:
            raise DivergedError(
                f"no gradient was finite in updates {updates - skipped + 1} to"
                f" {updates}, so none was applied. The environment or the network gives"
                f" NaN or infinity: see the last rows of {self.lines.path}. A smaller"
                " learning rate may help. The last good checkpoint is that of update"
                f" {self.store.steps[-1]}, in {self.store.directory}"
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
        print(f"{directory.path}: resuming at update {_progress(restored)[0]:,}")
        engine.resume(restored)
        return restored, True
    if directory.metrics.exists() and directory.metrics.stat().st_size:
        raise CheckpointError(
            f"{directory.path} has metrics, but no checkpoint to resume from: its"
            " checkpoints were removed. Start again under another --name"
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
    sinks: list[Sink] = [lines, LiveCurve(directory.curve, lines.rows)]
    if settings.tensorboard:
        purge_step = _progress(run)[1] + 1 if resumed else None
        sinks.append(TensorBoard(directory.tensorboard, purge_step))
    if settings.wandb:
        sinks.append(WeightsAndBiases(directory.path, to_json(args), resume=resumed))
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
    if steps_per_update is not None:
        refuse(steps_per_update=steps_per_update)
    return Budget(num_updates, total_env_steps, steps_per_update)


def _progress(run: Run) -> tuple[int, int]:
    """Updates, the same for all members of a population, and the steps of all."""
    updates = jax.tree.map(lambda x: jnp.ravel(x)[0], run.progress.updates)
    return int(updates), total(run.progress.env_steps)


def _skipped_in_a_row(run: Run) -> int:
    """The fewest of any member: a population goes on while one of them learns."""
    return int(np.min(jax.device_get(run.progress.skipped_in_a_row)))


def _summarize(
    run: Run, lines: JsonLines, engine: Engine, results: dict[str, float], name: str
) -> Summary:
    updates, env_steps = _progress(run)
    seconds = lines.rows[-1]["seconds"] if lines.rows else 0.0
    return Summary(
        name=name,
        updates=updates,
        env_steps=env_steps,
        episode_return=latest_return(lines.rows),
        steps_per_second=env_steps / seconds if seconds else 0.0,
        seconds=seconds,
        compile_seconds=engine.compile_seconds,
        peak_memory_bytes=peak_memory_bytes(),
        skipped=int(np.sum(jax.device_get(run.progress.skipped))),
        state_sha256=state_hash(run),
        evaluation=results,
    )
