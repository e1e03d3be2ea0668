"""What the engines of actors and of workers have in common: a pool of threads."""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Generic

from jaxrl_par.bridge.factory import ActorFactory, M
from jaxrl_par.bridge.pool import ActorPool
from jaxrl_par.bridge.supervision import SupervisionConfig, Supervisor
from jaxrl_par.loops import Engine
from jaxrl_par.loops.records import Recorder


class PoolEngine(Engine, Generic[M]):
    """An engine whose threads are an `ActorPool`. A subclass adds `init`, `resume`,
    `advance` and `report`.

    Its threads do not know it: one that nobody refers to any more, as when the cell of
    a notebook runs again, ends them.
    """

    def __init__(self, config: SupervisionConfig, num_members: int, name: str):
        """`name`: what a member is called in errors and reports."""
        self._supervision = config
        self._num_members = num_members
        self._name = name
        self._supervisor = Supervisor(config.patience)
        self._record: Path | None = None
        self._recorder: Recorder | None = None
        self._closed = False
        self._resources = ExitStack()
        self._free = weakref.finalize(self, self._resources.close)
        self._began: float | None = None
        self._factory: ActorFactory[M] | None = None
        self._pool: ActorPool[M]

    @property
    def compile_seconds(self) -> float:
        return self._factory.tally.compile_seconds if self._factory else 0.0

    def record(self, path: Path) -> None:
        """Writes the schedule to this file, for a replay."""
        if self._began is not None:
            raise RuntimeError("what was done is not recorded: record before advance")
        # Absolute: simulators may change the process's directory.
        self._record = path.absolute()

    def close(self) -> None:
        """Ends all threads and frees all environments; a second call does nothing.

        What was acted and not learned from counts as dropped. Threads inside a call
        that does not return are left behind, and named in the report.
        """
        closed, self._closed = self._closed, True
        if closed or self._factory is None:  # nor is there a pool
            return
        with self._pool.warning_owner():
            self._free()

    @contextmanager
    def _ended_by_errors(self) -> Iterator[None]:
        """No thread goes on when something raises in here. Ctrl-C also closes."""
        try:
            yield
        except Exception as error:
            self._supervisor.fail(error)
            raise
        except BaseException:
            self.close()
            raise

    def _check_new(self) -> None:
        """
        Raises:
          RuntimeError: there are members already, whose threads would be doubled.
        """
        if self._factory is not None:
            raise RuntimeError("an engine has one run: make another engine for another")

    def _make(self, factory: ActorFactory[M]) -> list[M]:
        """Makes all environments, each in a thread."""
        self._factory = factory
        self._pool = ActorPool(
            self._supervisor, self._supervision, factory, self._num_members, self._name
        )
        self._resources.callback(self._pool.stop)
        with self._ended_by_errors():
            self._pool.make()
        return list(self._pool)

    def _begin(self, first_update: int) -> None:
        """Starts the record, and the clock of the report."""
        if self._record is not None:
            self._recorder = Recorder(self._record, first_update)
            self._resources.callback(self._recorder.close)
        self._began = self._supervisor.clock()

    def _counts(self, learned_rows: int) -> dict[str, Any]:
        """What all reports have."""
        assert self._factory is not None and self._began is not None
        tally, dropped_rows = self._factory.tally, self._factory.tally.dropped_rows
        if self._closed:
            # All that was acted, and not learned from.
            dropped_rows = sum(x.rows for x in self._pool.all_actors) - learned_rows
        return {
            "seconds": max(self._supervisor.clock() - self._began, 1e-9),
            "updates": tally.updates,
            "lags": dict(sorted(tally.lags.items())),
            "compile_seconds": tally.compile_seconds,
            "restarts": tally.restarts,
            "dropped_rows": dropped_rows,
            "abandoned": self._pool.abandoned,
        }
