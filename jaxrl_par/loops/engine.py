"""What training drives: a compiled program, actors in threads, or workers."""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxrl_par.loops.run import Run
from jaxrl_par.types import Metrics, PRNGKey


@runtime_checkable
class Report(Protocol):
    """What an engine says about the time of its threads."""

    @property
    def lags(self) -> Mapping[int, int]:
        """How often learning was so many updates behind acting."""
        ...

    @property
    def counted(self) -> str:
        """The unit that `lags` counts, such as rows."""
        ...

    @property
    def dropped_rows(self) -> int:
        """Rows that were acted, and then not learned from."""
        ...

    def row(self) -> dict[str, Any]:
        """Numbers for `metrics.jsonl`."""
        ...

    def lines(self) -> list[str]:
        """Lines of the table in the terminal."""
        ...

    def advice(self) -> str:
        """What to change first, in a sentence."""
        ...

    def bars(self) -> dict[str, dict[str, float]]:
        """Shares of the time by thread, for the picture."""
        ...


class Engine(AbstractContextManager):
    """Advances a run by updates: `init`, perhaps `resume`, `advance`, `close`, which
    is also what the end of a `with` does."""

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    @abstractmethod
    def compile_seconds(self) -> float:
        """Time that compiling took until now; asked for after `init`."""

    @abstractmethod
    def init(self, key: PRNGKey) -> Run:
        """A new run. Its leaves have strong types, as those that come from a file."""

    @abstractmethod
    def resume(self, run: Run) -> None:
        """Takes what is outside the run to where a restored run was saved."""

    @abstractmethod
    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """So many updates, done when it returns; metrics are stacked [num_updates].

        One that raises may have used up `run`: then `rescue` has what is left of it.
        """

    def rescue(self) -> tuple[Run, Metrics] | None:
        """After an `advance` that raised, once: the run after the last update that was
        made, and the metrics of those of that call. None if that cannot be had."""
        return None

    @abstractmethod
    def record(self, path: Path) -> None:
        """Where to write the schedule, if it is one that can be repeated from there.

        Raises:
          RuntimeError: it has advanced already.
        """

    @abstractmethod
    def report(self) -> Report | None:
        """Where the time of threads went, None where there are none."""

    @abstractmethod
    def close(self) -> None:
        """Frees threads and environments; a second call does nothing."""
