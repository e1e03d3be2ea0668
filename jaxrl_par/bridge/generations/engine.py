"""Workers in threads that play parts of a generation, and an owner that learns."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.bridge.engine import PoolEngine
from jaxrl_par.bridge.generations.board import Board, Entered
from jaxrl_par.bridge.generations.evaluator import Evaluator
from jaxrl_par.bridge.generations.report import GenerationsReport
from jaxrl_par.bridge.generations.system import EvaluatorSystem, Parts
from jaxrl_par.bridge.pool import ActorPool
from jaxrl_par.bridge.reports import Times
from jaxrl_par.bridge.supervision import DeadlineError, Stopped
from jaxrl_par.loops import Run
from jaxrl_par.loops.generations import Played, of_members
from jaxrl_par.loops.records import Entry
from jaxrl_par.types import Mean, Metrics, Params, PRNGKey


class GenerationsEngine(PoolEngine[Evaluator]):
    """Workers in threads, and the parameters with whoever calls `advance`."""

    def __init__(self, parts: Parts):
        config = parts.config
        super().__init__(config.supervision, config.num_workers, name="worker")
        self._parts = parts
        self._board: Board | None = None
        self._made: tuple[Run, list[Metrics]] | None = None
        """What is whole in the middle of `advance`."""
        self._late, self._late_fitness = 0, 0.0
        """Members that came too late, and the sum of what they have reached."""
        self._learned_rows = 0

    def init(self, key: PRNGKey) -> Run:
        """Makes all workers, and a new run.

        Raises:
          RuntimeError: there is a run.
          RefusedError: no parameters may be perturbed.
          HangError: an environment is not made in time.
          Exception: as the environment raised it.
        """
        self._check_new()
        self._system = self._make_system(key)
        return self._system.new_run(self._make(self._system))

    def resume(self, run: Run) -> None:
        """Does nothing: all is in the run."""

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """So many generations.

        Raises:
          DeadlineError, HangError: a thread is late.
          Exception: what a worker raised, with its own traceback, and a note that names
            the worker, environment and part.
        """
        with self._ended_by_errors():
            if self._board is None:
                self._start(int(run.progress.updates))
            with self._supervisor.working(), self._pool.warning_owner():
                for _ in range(num_updates):
                    self._generation(run)
                    assert self._made is not None
                    run = self._made[0]
        made = self.rescue()
        assert made is not None
        return made

    def rescue(self) -> tuple[Run, Metrics] | None:
        made, self._made = self._made, None
        if made is None:
            return None
        run, metrics = made
        return run, jax.tree.map(lambda *xs: np.stack(xs), *metrics)

    def report(self) -> GenerationsReport | None:
        """Where the time went until now; None before the first update."""
        if self._board is None:
            return None
        tally, late = self._system.tally, self._late
        mean = self._late_fitness / late if late else math.nan
        counts = self._counts(self._learned_rows)
        return GenerationsReport(
            steps_per_second=tally.env_steps / counts["seconds"],
            dropped=late,
            dropped_fitness=mean,
            workers=[x.times.shares() for x in self._pool],
            learner=self._learner_times.shares(),
            **counts,
        )

    def _generation(self, run: Run) -> None:
        """Plays it, and leaves `_made`, for who comes when the next one fails."""
        times, system, board = self._learner_times, self._system, self._board
        assert board is not None
        generation, params = int(run.progress.updates), system.params(run)
        times.timed("publishing", self._publish, generation, params)
        board.open(system.tasks(run, params))
        quorum = self._parts.config.quorum
        entered, late = times.timed("waiting for members", board.collect, quorum)
        played = [x.played for x in entered]
        before = int(run.progress.env_steps)
        if not system.is_compiled:
            # Meanwhile no thread can be late.
            with self._supervisor.paused():
                system.compile(run, played)
        run, metrics = times.timed("updating", system.learned, run, played)
        self._count(entered, int(run.progress.env_steps) - before)
        if quorum < self._parts.config.num_parts:
            metrics = metrics | self._counted(late)
        self._made = run, [*(self._made or (run, []))[1], metrics]
        # After the update: a line is in the record only if the update was made.
        if self._recorder:
            self._recorder.write([_entry(x, generation) for x in entered])

    def _count(self, entered: list[Entered], env_steps: int) -> None:
        tally = self._system.tally
        tally.env_steps += env_steps
        tally.updates += 1
        tally.lags[0] += len(entered)
        self._learned_rows += sum(x.rows for x in entered)

    def _counted(self, late: list[Played]) -> Metrics:
        """What is told of members that came too late."""
        means = [of_members(jnp.asarray(x.fitness)) for x in late]
        total = sum(float(x.total) for x in means)
        count = sum(int(x.count) for x in means)
        self._late, self._late_fitness = self._late + count, self._late_fitness + total
        told: Any = np.array(total, np.float32), np.array(count, np.float32)
        return {"dropped": told[1], "dropped_fitness": Mean(*told)}

    def _publish(self, generation: int, params: Params) -> None:
        """For workers elsewhere; those in threads are given them with each part."""

    def _make_system(self, key: PRNGKey) -> EvaluatorSystem:
        return EvaluatorSystem(self._parts, key)

    def _start(self, update: int) -> None:
        self._begin(update)
        self._learner_times = Times(self._supervisor.clock)
        self._board = Board(self._supervisor)
        self._pool.start(partial(_live, self._board, self._pool))


def _entry(entered: Entered, generation: int) -> Entry:
    # Of a part in place of an unroll: it is acted with the generation's parameters.
    return Entry(entered.worker, entered.part, entered.generation, generation)


def _live(board: Board, pool: ActorPool[Evaluator], worker: Evaluator) -> None:
    """The life of a worker's thread, which does not know the engine: that can be
    forgotten, and then ends it."""
    while True:
        try:
            task = worker.times.timed("waiting for parts", board.take, worker.index)
            before = worker.rows
            played = worker.evaluate(task)
            rows = worker.rows - before
            board.put(worker.index, worker.generation, played, rows)
        except (Stopped, DeadlineError):
            # Not of the environment: new ones would not help.
            raise
        except Exception as error:
            board.give_back(worker.index)
            pool.restart(worker, error)
