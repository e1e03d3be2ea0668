"""What reports of threads have in common: times by what a thread did, and counts."""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from jaxrl_par.measured import Metric

METRICS = {
    "restarts": Metric(
        "environments", "made anew after an error, since the run began or was resumed"
    ),
    "dropped_rows": Metric(
        "rows", "acted and not learned from: of restarted actors, or left at the end"
    ),
    **{
        f"{thread}_*": Metric(
            "share of time", "that such threads spent so, mean over them"
        )
        for thread in (
            *("actor", "worker", "learner"),
            *("uploader", "shard", "distiller", "inference"),
        )
    },
}

T = TypeVar("T")
Shares = dict[str, float]
"""Shares of the time of a thread, by what it did or waited for."""


class Times:
    """Seconds by what a thread did. Written by one thread, read by any."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._seconds: dict[str, float] = {}
        self._started = clock()

    def add(self, doing: str, seconds: float) -> None:
        self._seconds[doing] = self._seconds.get(doing, 0.0) + seconds

    def timed(self, doing: str, call: Callable[..., T], *arguments: Any) -> T:
        """Calls, and adds the time that it took."""
        started = self.clock()
        try:
            return call(*arguments)
        finally:
            self.add(doing, self.clock() - started)

    def seconds(self) -> dict[str, float]:
        """Seconds until now, by what the thread did."""
        return dict(self._seconds)

    def shares(self) -> Shares:
        """Shares of the time since the start; what was not timed is `other`."""
        total = max(self.clock() - self._started, 1e-9)
        # Copied in one step: its thread may add a name meanwhile.
        shares = {name: x / total for name, x in list(self._seconds.items())}
        return shares | {"other": max(0.0, 1.0 - sum(shares.values()))}


class Tally:
    """What the learner counts while it runs."""

    def __init__(self) -> None:
        self.lags: Counter[int] = Counter()
        self.compile_seconds = 0.0
        self.updates = self.env_steps = self.uploaded_bytes = 0
        self.depths = self.takes = 0
        self.restarts = self.dropped_rows = 0
        self.learned_rows: Counter[int] = Counter()
        """By actor."""
        self.stale_rows: Counter[int] = Counter()
        """By actor: those that were dropped because they were too old."""


@dataclass(frozen=True, kw_only=True)
class ThreadsReport(ABC):
    """One run of threads, from its start or resumption. A subclass says whose."""

    counted: ClassVar[str]
    """The unit that `lags` counts."""
    seconds: float
    """Time since the threads started, without pauses for evaluation and saving."""
    updates: int
    lags: dict[int, int]
    """How often learning was so many updates behind acting; `counted` is the unit."""
    compile_seconds: float
    restarts: int
    """Environments that were made anew after an error."""
    dropped_rows: int
    """Rows that were acted, and then not learned from: those of restarted actors, and
    those that were left at the end."""
    abandoned: list[str]
    """Threads that did not end, because an environment did not return."""

    @abstractmethod
    def bars(self) -> dict[str, Shares]:
        """Shares of the time by thread, such as "actor 0", for the picture."""

    @abstractmethod
    def numbers(self) -> dict[str, Any]:
        """What a row has of this kind of report only."""

    @abstractmethod
    def rates(self) -> str:
        """The first line: steps per second."""

    def details(self) -> list[str]:
        """Lines of this kind of report only."""
        return []

    @abstractmethod
    def bottleneck(self) -> str:
        """What to change first where nothing fails, in a sentence."""

    def lag(self) -> float:
        """Mean lag over all that `lags` counts, in updates."""
        count = sum(self.lags.values())
        return sum(lag * n for lag, n in self.lags.items()) / count if count else 0.0

    def advice(self) -> str:
        """What to change first, in a sentence."""
        if self.restarts:
            return (
                f"environments were made anew {self.restarts} times: find out why"
                " before anything else"
            )
        return self.bottleneck()

    def row(self) -> dict[str, Any]:
        """Numbers for `metrics.jsonl` that no update measures, as each does its lag;
        shares are means over threads of one kind."""
        shares = {
            f"{kind}_{doing.replace(' ', '_')}": share
            for kind, threads in self._kinds().items()
            for doing, share in mean_shares(threads).items()
        }
        return {
            "restarts": self.restarts,
            "dropped_rows": self.dropped_rows,
            **self.numbers(),
            **shares,
        }

    def lines(self) -> list[str]:
        """Lines of the table in the terminal."""
        count = sum(self.lags.values())
        lags = ", ".join(f"{lag}: {n / count:.0%}" for lag, n in self.lags.items())
        left = f"  left behind {', '.join(self.abandoned)}"
        return [
            self.rates(),
            *self._thread_lines(),
            *self.details(),
            f"  lag         {self.lag():.2f} updates on average:"
            f" {lags or 'nothing was learned'}",
            f"  compiling   {self.compile_seconds:.1f} s",
            f"  lost        {self.restarts} restarts, {self.dropped_rows:,} rows acted"
            " and not learned from",
            *([left] if self.abandoned else []),
        ]

    def _kinds(self) -> dict[str, list[Shares]]:
        """Shares of each thread, by the kind that its name begins with."""
        kinds: dict[str, list[Shares]] = {}
        for name, shares in self.bars().items():
            kinds.setdefault(name.split()[0], []).append(shares)
        return kinds

    def _thread_lines(self) -> list[str]:
        lines = []
        for kind, threads in self._kinds().items():
            name = kind if kind in self.bars() else f"{len(threads)} {kind}s"
            largest = sorted(mean_shares(threads).items(), key=lambda x: -x[1])
            shares = [f"{doing} {share:.0%}" for doing, share in largest if share > 0]
            lines.append(f"  {name:<10}  {', '.join(shares)}")
        return lines


def mean_shares(threads: Sequence[Shares]) -> Shares:
    """Means over threads; what one did not do counts as 0."""
    names = sorted({name for shares in threads for name in shares})
    return {
        name: sum(shares.get(name, 0.0) for shares in threads) / len(threads)
        for name in names
    }
