"""Workers in threads that share parameters through a store."""

import jax

from jaxrl_par.bridge.crew import Limits
from jaxrl_par.bridge.engine import CrewEngine
from jaxrl_par.bridge.record import Turn
from jaxrl_par.bridge.store_report import StoreReport
from jaxrl_par.bridge.stores import MakeStore, Push, Server, Store, Update
from jaxrl_par.bridge.supervision import DeadlineError, Stopped
from jaxrl_par.bridge.worker import Given, Worker
from jaxrl_par.bridge.workshop import Parts, Workshop
from jaxrl_par.loops import Run
from jaxrl_par.types import Metrics, PRNGKey, State


class Workforce(CrewEngine[Worker]):
    """An engine of `training.train`: `init`, perhaps `resume`, `advance`, `close`."""

    def __init__(self, parts: Parts, make_store: MakeStore, limits: Limits):
        super().__init__(limits, parts.num_workers, name="worker")
        self._parts = parts
        self._make_store = make_store
        self._store: Store | None = None
        self._state: State = None
        self._target = 0

    def init(self, key: PRNGKey) -> Run:
        """Makes all environments, each in a thread, and a new run.

        Raises:
          ValueError: the agent's statistics of data would be lost, or its state cannot
            be divided.
          HangError: an environment is not made in time.
          Exception: as the environment raised it.
        """
        self._shop = Workshop(self._parts, key)
        run = self._shop.new_run(self._make(self._shop))
        self._shards = self._shop.shards(run.learner)
        return run

    def resume(self, run: Run) -> None:
        """As `Threaded.resume`."""
        self._crew.resume(run.local.workers)

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """So many pushes of workers, applied or refused.

        Between two calls nobody writes; workers go on until they have something to
        push.

        Raises:
          ValueError: the run is not the one that was returned last.
          DeadlineError, HangError: somebody is late.
          Exception: what a worker raised, with its own traceback, and a note that names
            the worker, environment and step.
        """
        if self._store is None:
            self._start(run)
        elif run.learner is not self._state:
            raise ValueError(
                "workers go on with the parameters in their store: advance needs the"
                " run that it returned last"
            )
        assert self._store is not None
        with self._supervisor.working(), self._crew.telling():
            self._target += num_updates
            self._store.open(self._target)
            taken = self._store.take()
        self._state = taken.state
        self._write(taken.updates)
        self._count(taken.updates)
        return self._shop.after(run, taken)

    def report(self) -> StoreReport | None:
        """Where the time went until now; None before the first update."""
        if self._store is None:
            return None
        tally, crew, store = self._shop.tally, self._crew, self._store
        seconds = max(self._supervisor.clock() - self._began, 1e-9)
        return StoreReport(
            kind=type(store).__name__.lower(),
            seconds=seconds,
            steps_per_second=tally.env_steps / seconds,
            updates=tally.updates,
            rejected=self._rejected,
            workers=[x.times.shares() for x in crew],
            shards=[x.shares() for x in store.times]
            if isinstance(store, Server)
            else [],
            lags=dict(sorted(tally.lags.items())),
            statistics=store.statistics(),
            compile_seconds=self.compile_seconds,
            restarts=tally.restarts,
            dropped_rows=self._dropped(tally.updates * self._rows),
            abandoned=crew.abandoned,
        )

    def _start(self, run: Run) -> None:
        worker = next(iter(self._crew))
        state = jax.device_put(run.learner, self._parts.device)
        self._shop.compile(worker, self._shards, state)
        self._first = int(run.progress.updates)
        self._rejected = self._rows = 0
        self._start_record(self._first)
        self._began = self._supervisor.clock()
        store = self._make_store(self._supervisor, self._shards, state)
        if isinstance(store, Server):
            store.start()
        self._store = store
        self._crew.start(self._live)

    def _live(self, worker: Worker) -> None:
        """The life of a worker's thread."""
        store, times = self._store, worker.times
        assert store is not None
        while True:
            try:
                pulled = times.timed("pulling", store.pull, worker.index)
                made = worker.contribute(pulled.state)
                push = Push(made.part, pulled, made.given, made.after)
                store.push(worker.index, push, times)
            except (Stopped, DeadlineError):
                raise
            except Exception as error:
                self._crew.restart(worker, error)

    def _write(self, updates: list[Update]) -> None:
        if self._recorder:
            for update in updates:
                given: Given = update.item
                read = tuple(self._first + n for n in update.read)
                turn = Turn(given.worker, given.unroll, given.generation, read)
                self._recorder.write([turn])

    def _count(self, updates: list[Update]) -> None:
        tally = self._shop.tally
        for update in updates:
            self._rows = update.item.rows
            tally.lags[round(float(update.metrics["lag"]))] += 1
            tally.env_steps += int(update.item.env_steps)
            tally.updates += 1
            self._rejected += bool(update.metrics["rejected"])
