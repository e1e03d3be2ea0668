"""Engines with a crew: what those of actors and of workers have in common."""

from pathlib import Path
from typing import Generic

from jaxrl_par.bridge.crew import Crew, Limits
from jaxrl_par.bridge.record import Recorder
from jaxrl_par.bridge.source import M, Source
from jaxrl_par.bridge.supervision import Supervisor


class CrewEngine(Generic[M]):
    """An engine of `training.train`, without `init`, `resume` and `advance`."""

    def __init__(self, limits: Limits, num_members: int, name: str):
        """
        Args:
          name: what a member is called in errors and reports.
        """
        self._limits = limits
        self._num_members = num_members
        self._name = name
        self._supervisor = Supervisor(limits.patience)
        self._record: Path | None = None
        self._recorder: Recorder | None = None
        self._closed = False

    @property
    def compile_seconds(self) -> float:
        # Asked for before `init` where an engine is recognised by what it has.
        source = getattr(self, "_source", None)
        return source.compile_seconds if source else 0.0

    def record(self, path: Path) -> None:
        """Writes the schedule to this file, for a replay."""
        self._record = path

    def close(self) -> None:
        """Ends all threads and frees all environments; a second call does nothing.

        What was acted and not learned from counts as dropped. Threads inside a call
        that does not return are left behind, and named in the report.
        """
        if self._closed:
            return
        self._closed = True
        # Before `init` nothing runs.
        if (crew := getattr(self, "_crew", None)) is None:
            return
        with crew.telling():
            crew.stop()
            if self._recorder:
                self._recorder.close()

    def _make(self, source: Source[M]) -> list[M]:
        """Makes all environments, each in a thread."""
        self._source = source
        self._crew: Crew[M] = Crew(
            self._supervisor, self._limits, source, self._num_members, self._name
        )
        self._crew.make()
        return list(self._crew)

    def _start_record(self, first_update: int) -> None:
        if self._record is not None:
            self._recorder = Recorder(self._record, first_update)

    def _dropped(self, learned_rows: int) -> int:
        """Rows that were acted, and not learned from."""
        if not self._closed:
            return self._source.tally.dropped_rows
        return sum(actor.rows for actor in self._crew.all_actors) - learned_rows
