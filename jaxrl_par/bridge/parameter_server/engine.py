"""Workers in threads that share parameters through a store."""

from functools import partial

import jax

from jaxrl_par.bridge.engine import PoolEngine
from jaxrl_par.bridge.parameter_server import stores
from jaxrl_par.bridge.parameter_server.report import (
    REASONS,
    ParameterServerReport,
)
from jaxrl_par.bridge.parameter_server.system import Parts, WorkerSystem
from jaxrl_par.bridge.parameter_server.worker import PushInfo, Worker
from jaxrl_par.bridge.pool import ActorPool
from jaxrl_par.bridge.supervision import DeadlineError, Stopped
from jaxrl_par.loops import Run
from jaxrl_par.loops.records import Turn
from jaxrl_par.types import Metrics, PRNGKey, State


class ParameterServerEngine(PoolEngine[Worker]):
    """Workers in threads, and a store that they share."""

    def __init__(self, parts: Parts, make_store: stores.MakeStore):
        config = parts.config
        super().__init__(config.supervision, config.num_workers, name="worker")
        self._parts = parts
        self._make_store = make_store
        self._store: stores.Store | None = None
        self._state: State = None
        self._before: Run | None = None
        """What `advance` has begun from, until it is done."""
        self._target = 0

    def init(self, key: PRNGKey) -> Run:
        """Makes all environments, each in a thread, and a new run.

        Raises:
          RuntimeError: there is a run.
          ValueError: the agent's statistics of data would be lost, or its state cannot
            be divided.
          HangError: an environment is not made in time.
          Exception: as the environment raised it.
        """
        self._check_new()
        self._system = self._make_system(key)
        run = self._system.new_run(self._make(self._system))
        self._shards = self._system.shards(run.learner)
        return run

    def resume(self, run: Run) -> None:
        """Takes the workers to where the run was saved, in place of those of `init`."""
        self._pool.resume(run.local.workers)

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """So many pushes of workers, applied or refused.

        Between two calls no worker writes; they go on until they have something to
        push.

        Raises:
          ValueError: the run is not the one that was returned last.
          DeadlineError, HangError: a thread is late.
          Exception: what a worker raised, with its own traceback, and a note that names
            the worker, environment and step.
        """
        if self._store is not None and run.learner is not self._state:
            raise ValueError(
                "workers go on with the parameters in their store: advance needs the"
                " run that it returned last"
            )
        self._before = run
        with self._ended_by_errors():
            if self._store is None:
                self._start(run)
            assert self._store is not None
            with self._supervisor.working(), self._pool.warning_owner():
                self._target += num_updates
                # The owner sees the state only when so many pushes are in, and none is
                # on its way: then no worker writes.
                self._store.admit_until(self._target)
                drained = self._store.drain()
        self._before = None
        return self._done(run, drained)

    def rescue(self) -> tuple[Run, Metrics] | None:
        before, self._before = self._before, None
        if before is None or self._store is None:
            return None
        self.close()  # or workers might still push
        drained = self._store.settled()
        return self._done(before, drained) if drained.updates else None

    def _done(self, run: Run, drained: stores.Drained) -> tuple[Run, Metrics]:
        self._state = drained.state
        self._count(drained.updates)
        return self._system.after(run, drained)

    def report(self) -> ParameterServerReport | None:
        """Where the time went until now; None before the first update."""
        if self._store is None:
            return None
        tally, store = self._system.tally, self._store
        counts = self._counts(tally.updates * self._rows)
        shards = store.times if isinstance(store, stores.Server) else []
        return ParameterServerReport(
            kind=type(store).__name__.lower(),
            steps_per_second=tally.env_steps / counts["seconds"],
            refused=dict(self._refused),
            workers=[x.times.shares() for x in self._pool],
            shards=[x.shares() for x in shards],
            statistics=store.statistics(),
            **counts,
        )

    def _make_system(self, key: PRNGKey) -> WorkerSystem:
        return WorkerSystem(self._parts, key)

    def _start(self, run: Run) -> None:
        state = jax.device_put(run.learner, self._parts.device)
        self._system.compile(next(iter(self._pool)), self._shards, state)
        self._first = int(run.progress.updates)
        self._refused = dict.fromkeys(("rejected", *REASONS), 0)
        self._rows = 0
        self._begin(self._first)
        store = self._make_store(self._supervisor, self._shards, state)
        if isinstance(store, stores.Server):
            store.start()
        self._store = store
        self._pool.start(partial(_live, store, self._pool))

    def _count(self, updates: list[stores.Update]) -> None:
        """Counts them, and writes them into the record."""
        tally = self._system.tally
        for update in updates:
            info: PushInfo = update.item
            if self._recorder:
                read = tuple(self._first + n for n in update.read)
                turn = Turn(info.worker, info.unroll, info.generation, read)
                self._recorder.write([turn])
            self._rows = info.rows
            tally.lags[round(float(update.metrics["lag"]))] += 1
            tally.env_steps += info.env_steps
            tally.updates += 1
            for name in self._refused:
                self._refused[name] += bool(update.metrics[name])


def _live(store: stores.Store, pool: ActorPool[Worker], worker: Worker) -> None:
    """The life of a worker's thread, which does not know the engine: that can be
    forgotten, and then ends it."""
    times = worker.times
    while True:
        try:
            pulled = times.timed("pulling", store.pull, worker.index)
            done = worker.contribute(pulled.state)
            # Pushed as a whole or not at all: a worker that fails loses one gradient,
            # and no other one notices.
            read = done.read or pulled
            push = stores.Push(done.given, read, done.info, done.after)
            store.push(worker.index, push, times)
        except (Stopped, DeadlineError):
            # Not of the environment: new ones would not help.
            raise
        except Exception as error:
            pool.restart(worker, error)
