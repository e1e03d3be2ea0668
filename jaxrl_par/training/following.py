"""What a process of a run has that does not lead it: it takes part in all that is
computed, and writes nothing."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from jaxrl_par.hosts.collective import fetched, said_by_first, spread
from jaxrl_par.loops import Run
from jaxrl_par.training import manifests
from jaxrl_par.training.directory import RunDirectory
from jaxrl_par.training.rows import Row


class NoDirectory(RunDirectory):
    """The folder, which is process 0's."""

    def __enter__(self) -> "NoDirectory":
        return self

    def come_back(self) -> None:
        """Does nothing."""

    def __exit__(self, *exception: object) -> None:
        """Does nothing."""


class NoCheckpoints(AbstractContextManager):
    """Checkpoints, which process 0 writes and reads: this one gives its part of each,
    and takes it back. So all go on from one step, the newest that process 0 trusts."""

    steps: Sequence[int] = ()
    """None that this process could see."""

    def __init__(self, directory: Path):
        self.directory = directory

    def __exit__(self, *exception: object) -> None:
        """Does nothing."""

    def described(self) -> str:
        """Where there may be one."""
        return "Process 0 has the checkpoints"

    def save(self, step: int, run: Run) -> None:
        """Gives what process 0 saves."""
        del step
        if said_by_first():
            fetched(manifests.leaves_of(run))

    def save_best(self, step: int, run: Run, score: float) -> None:
        """Gives what process 0 saves, if that is better."""
        del score
        self.save(step, run)

    def restore(self, like: Run) -> Run | None:
        """The run that process 0 restored; None if it has none."""
        if not said_by_first():
            return None
        return manifests.with_leaves(like, spread(None, manifests.leaves_of(like)))


class NoLines:
    """Rows of metrics, which process 0 writes."""

    path = Path("metrics.jsonl")

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def write(self, row: Row) -> None:
        """Keeps the newest alone."""
        self.rows = [row]

    def flush(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
