"""Training a program: chunks of updates, and between them all that a host does.

A chunk is `log_interval` updates in one call. Between two chunks the runner logs, saves
and answers signals. The division into chunks is the same in a run that was stopped and
resumed, so that both compute the same bits.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_par.bridge.supervision import DeadlineError
from jaxrl_par.envs.host.admission import BadRowError
from jaxrl_par.errors import RefusedError, refuse, refuse_any, told
from jaxrl_par.hosts.collective import (
    alone,
    fetched,
    here,
    leads,
    said_by_first,
    told_by_first,
)
from jaxrl_par.loops import Engine, Program, Run
from jaxrl_par.loops.records import RecordError
from jaxrl_par.training import parallelism, rows
from jaxrl_par.training.budget import budget_of
from jaxrl_par.training.checkpoints import CheckpointError, Checkpoints, state_hash
from jaxrl_par.training.comparison import named
from jaxrl_par.training.decoration import harmless
from jaxrl_par.training.directory import RunDirectory
from jaxrl_par.training.display import display
from jaxrl_par.training.engines import Compiled
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import write_json, write_text
from jaxrl_par.training.following import NoCheckpoints, NoLines
from jaxrl_par.training.interrupts import Interrupted, Signals, interrupts
from jaxrl_par.training.keeping import checkpoints_of, folder_of, sinks_of
from jaxrl_par.training.loop import Evaluate, Loop, asked_by, progress
from jaxrl_par.training.output import lasting_output
from jaxrl_par.training.rows import JsonLines, Sink
from jaxrl_par.training.sessions import keeps_sessions
from jaxrl_par.training.settings import TrainingConfig
from jaxrl_par.training.summary import (
    Summary,
    latest_return,
    peak_memory_bytes,
    xla_threads,
)
from jaxrl_par.training.words import option, switch
from jaxrl_par.types import PRNGKey


class Trained(NamedTuple):
    """What training leaves."""

    run: Run
    summary: Summary
    directory: RunDirectory


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
      args: all else that decides what is learned: a dataclass, a mapping or None; it
        may have the settings in it. To resume, that of the run.
      key: starts a new run; that of a resumed run is in its checkpoint.
      num_updates: steps of the program. The last chunk may be shorter.
      total_env_steps: in its place; training ends with the chunk that reaches it, or
        with the very update if `steps_per_update` says the most that one can have.
      evaluate: called every `evaluation_interval` updates and at the end.
      default_name: name of the folder, where the settings have none.
      extends: fields of `args` that only say how long to train; to resume with more is
        to train on.

    Raises:
      ValueError: settings or a count are out of range; there is not just one budget;
        something else is given than is asked for.
      TrainingError: the folder or a checkpoint cannot be used, the disk is full, or
        (`DivergedError`) gradients stay not finite.
      Interrupted: a signal came; the run was saved.
      Exception: as an environment, an evaluation or the program raised it; the run was
        saved as far as it was whole.
    """
    refuse(settings)
    _check_parts(key, evaluate, extends)
    budget = budget_of(num_updates, total_env_steps, steps_per_update)
    engine = _engine(program, settings.log_interval)
    directory = folder_of(args, settings, default_name, extends)
    with (
        lasting_output(),
        directory,
        checkpoints_of(directory, args, settings, extends) as store,
        interrupts(store.described, alone=alone()) as signals,
        _engine_errors(engine, signals),
    ):
        engine.record(directory.schedule)
        run, resumed = _start(engine, store, directory, key, signals)
        done = progress(run)
        if budget.fraction(done) == 1 and said_by_first(directory.summary.exists()):
            return _finished(run, directory)
        lines, sinks = sinks_of(directory, args, settings, done, resumed=resumed)
        with _closed(sinks), display(directory.path.name) as show:
            about = settings, budget, engine, directory, store
            loop = Loop(*about, sinks, lines, show, signals)
            run = loop.advance(run, evaluate)
        summary = _end(loop, run, _final_results(run, evaluate, signals), directory)
        signals.raise_any()
    return Trained(here(run), summary, directory)


def _check_parts(key: Any, evaluate: Any, extends: Any) -> None:
    found = []
    if not isinstance(key, jax.Array):
        found.append(f"key must be one, as random.key(0) is, got {told(key)}")
    if evaluate is not None and not callable(evaluate):
        found.append(f"evaluate must be a function of a run, got {told(evaluate)}")
    if isinstance(extends, str):
        found.append(f"extends must be a tuple of names, got {extends!r}")
    refuse_any(found)


def _engine(program: Program | Engine, chunk: int) -> Engine:
    if isinstance(program, Program):
        return Compiled(program, chunk)
    if isinstance(program, Engine):
        return program
    raise RefusedError(
        "program must be a Program or an Engine, as the functions of `topologies`"
        f" return them, got {type(program).__name__}"
    )


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
        number = asked_by(error, signals)
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


def _start(
    engine: Engine,
    store: Checkpoints | NoCheckpoints,
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
        updates = progress(restored)["updates"]
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
    if run.settings and leads():
        own = {name: np.asarray(x).tolist() for name, x in named(run.settings).items()}
        write_json(directory.members, own)
    return run, False


@contextmanager
def _closed(sinks: Iterable[Sink]) -> Iterator[None]:
    """Closes all at the end."""
    with ExitStack() as stack:
        for sink in sinks:
            stack.enter_context(closing(sink))
        yield


def _final_results(
    run: Run, evaluate: Evaluate | None, signals: Signals
) -> rows.Results:
    """Of a run that is saved: what a signal ends here, a resumed one does again."""
    try:
        with signals.answered_at_once(lambda: None):
            return rows.results(evaluate(run)) if evaluate else {}
    except Interrupted as ended:
        told = f"{ended.number.name}: trained, but not evaluated to the end"
        print(f"{told}. Go on with {switch('resume')}")
        raise


def _finished(run: Run, directory: RunDirectory) -> Trained:
    own = asdict(Summary.read(directory.summary)) if leads() else None
    summary = Summary(**told_by_first(own))
    print(f"{directory.path} is finished:\n{summary.text()}")
    return Trained(run, summary, directory)


def _end(
    loop: Loop, run: Run, results: rows.Results, directory: RunDirectory
) -> Summary:
    """Writes and shows what the run comes to; its threads end before."""
    loop.keep_best(run, results)
    loop.engine.close()
    summary = _summarize(run, loop.lines, loop.engine, results, directory.path.name)
    if not leads():
        return summary
    with harmless("the summary"):
        summary.save(directory.summary)
    print(f"{directory.path}:\n{summary.text()}")
    if report := loop.engine.report():
        with harmless("the picture of the parallelism"):
            parallelism.draw(report, directory.parallelism)
            told = directory.parallelism.with_suffix(".txt")
            write_text(told, parallelism.text(report))
        print(parallelism.text(report))
    return summary


def _summarize(
    run: Run,
    lines: JsonLines | NoLines,
    engine: Engine,
    results: rows.Results,
    name: str,
) -> Summary:
    done = progress(run)
    seconds = lines.rows[-1].get("seconds", 0.0) if lines.rows else 0.0
    return Summary(
        name=name,
        **done,
        episode_return=latest_return(lines.rows),
        steps_per_second=done["env_steps"] / seconds if seconds else 0.0,
        seconds=seconds,
        compile_seconds=engine.compile_seconds,
        xla_threads=xla_threads(),
        peak_memory_bytes=peak_memory_bytes(),
        skipped=int(np.sum(fetched(run.progress.skipped))),
        state_sha256=state_hash(run),
        evaluation={name: rows.scalar(x) for name, x in results.items()},
    )
