"""What reports of threads have in common: times by what a thread did, and counts."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


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

    def shares(self) -> dict[str, float]:
        """Of the time since the start; what was not timed is `other`."""
        total = max(self.clock() - self._started, 1e-9)
        shares = {name: x / total for name, x in list(self._seconds.items())}
        return shares | {"other": max(0.0, 1.0 - sum(shares.values()))}


class Tally:
    """What the learner counts while it runs."""

    def __init__(self) -> None:
        self.lags: Counter[int] = Counter()
        self.uploaded_bytes = 0
        self.env_steps = 0
        self.updates = 0
        self.depths = 0
        self.takes = 0
        self.restarts = 0
        self.dropped_rows = 0


def mean_shares(threads: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over threads; what one did not do counts as 0."""
    names = sorted({name for shares in threads for name in shares})
    return {
        name: sum(shares.get(name, 0.0) for shares in threads) / len(threads)
        for name in names
    }


def line(shares: dict[str, float]) -> str:
    """Shares of a thread's time, the largest first."""
    largest = sorted(shares.items(), key=lambda x: -x[1])
    return ", ".join(f"{doing} {share:.0%}" for doing, share in largest if share > 0)


def lag_lines(mean: float, lags: dict[int, int], unit: str) -> list[str]:
    """Mean and histogram."""
    count = sum(lags.values())
    each = ", ".join(f"{lag}: {n / count:.0%}" for lag, n in lags.items())
    return [
        f"  lag         {mean:.2f} {unit} on average: {each or 'nothing was learned'}"
    ]


def lost_lines(restarts: int, dropped_rows: int, abandoned: list[str]) -> list[str]:
    """What did not go as it should."""
    lost = (
        f"  lost        {restarts} restarts, {dropped_rows:,} rows acted and not"
        " learned from"
    )
    return [lost, *([f"  left behind {', '.join(abandoned)}"] if abandoned else [])]
