"""Where the time of a run in threads goes, and what would make it faster."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
_WAITS = "waiting for "


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


class Report(NamedTuple):
    """One run of `topologies.threads`, from its start or resumption."""

    seconds: float
    """Since the threads started, without pauses for evaluation and saving."""
    actor_steps_per_second: float
    """Environment steps that were acted."""
    learner_steps_per_second: float
    """Environment steps that were learned from."""
    updates: int
    actors: list[dict[str, float]]
    """Share of the time of each actor, by what it did or waited for."""
    uploader: dict[str, float]
    learner: dict[str, float]
    queue_depth: float
    """Mean number of unrolls that waited in the queue when one was taken."""
    queue_size: int
    uploaded_bytes: int
    lags: dict[int, int]
    """Rows by the updates between the parameters that acted and those that learned."""
    compile_seconds: float
    restarts: int
    """Environments that were made anew after an error."""
    dropped_rows: int
    """Acted, and then not learned from: of restarted actors, or at the end."""
    abandoned: list[str]
    """Threads that did not end, because an environment did not return."""
    distillers: Sequence[dict[str, float]] = ()
    """Share of the time of each distiller, if there are any."""
    lessons: Sequence[int] = ()
    """How many each distiller learned from."""

    def lag(self) -> float:
        """Mean lag over rows, in updates."""
        rows = sum(self.lags.values())
        return sum(lag * n for lag, n in self.lags.items()) / rows if rows else 0.0

    def advice(self) -> str:
        """What to change first, in a sentence."""
        learner_waits = self.learner.get("waiting for unrolls", 0.0)
        distilling = self.learner.get("waiting for distillers", 0.0)
        actor_waits = mean_shares(self.actors)
        blocked = sum(x for n, x in actor_waits.items() if n.startswith(_WAITS))
        uploading = self.uploader.get("uploading", 0.0)
        if self.restarts:
            return (
                f"environments were made anew {self.restarts} times: find out why"
                " before anything else"
            )
        if uploading > 0.5 and learner_waits > 0.2:
            return (
                f"uploading takes {uploading:.0%} of the time: smaller observations"
                " (uint8 images), or fewer copies"
            )
        if distilling > 0.2 and distilling >= learner_waits:
            return (
                f"learner waits for distillers {distilling:.0%} of the time: more of"
                " them, up to the lessons of an update, or fewer lessons"
            )
        if learner_waits > 0.2 and learner_waits >= blocked:
            acting = actor_waits.get("acting", 0.0)
            if acting > actor_waits.get("environment", 0.0):
                return (
                    f"learner waits for actors {learner_waits:.0%} of the time, and"
                    f" actors spend {acting:.0%} acting: more environments for each"
                    " actor, or a smaller network"
                )
            return (
                f"learner waits for actors {learner_waits:.0%} of the time: more actor"
                " threads or a cheaper environment"
            )
        if blocked > 0.2:
            return (
                f"actors wait for the learner {blocked:.0%} of the time: fewer actors,"
                " a smaller network, or more devices for the learner"
            )
        return "actors and learner are in balance"

    def row(self) -> dict[str, Any]:
        """For `metrics.jsonl`; shares of actors are means over them."""
        threads = {
            "actor": mean_shares(self.actors),
            "uploader": self.uploader,
            "learner": self.learner,
            "distiller": mean_shares(self.distillers),
        }
        shares = {
            f"{thread}_{doing.replace(' ', '_')}": share
            for thread, doings in threads.items()
            for doing, share in doings.items()
        }
        return {
            "actor_steps_per_second": self.actor_steps_per_second,
            "learner_steps_per_second": self.learner_steps_per_second,
            "queue_depth": self.queue_depth,
            "uploaded_bytes": self.uploaded_bytes,
            "lag": self.lag(),
            "lag_max": max(self.lags, default=0),
            "restarts": self.restarts,
            "dropped_rows": self.dropped_rows,
            **({"lessons": sum(self.lessons)} if self.lessons else {}),
            **shares,
        }

    def lines(self) -> list[str]:
        """Of the table in the terminal."""
        threads = {
            f"{len(self.actors)} actors": mean_shares(self.actors),
            "uploader": self.uploader,
            "learner": self.learner,
        }
        if self.distillers:
            threads["distillers"] = mean_shares(self.distillers)
        lessons = ", ".join(f"{count:,}" for count in self.lessons)
        taught = (
            f"  lessons     {sum(self.lessons):,} by {len(self.lessons)} distillers:"
            f" {lessons}"
        )
        return [
            f"  actors      {self.actor_steps_per_second:,.0f} steps/s   learner"
            f" {self.learner_steps_per_second:,.0f} steps/s",
            *(f"  {name:<10}  {line(shares)}" for name, shares in threads.items()),
            f"  queue       {self.queue_depth:.1f} of {self.queue_size} unrolls waited"
            f" on average; {self.uploaded_bytes / 1e6:,.1f} MB uploaded",
            *lag_lines(self.lag(), self.lags, "updates"),
            *([taught] if self.lessons else []),
            f"  compiling   {self.compile_seconds:.1f} s for the learner",
            *lost_lines(self.restarts, self.dropped_rows, self.abandoned),
        ]

    def bars(self) -> dict[str, dict[str, float]]:
        """Shares of the time by thread, for the picture."""
        bars = {f"actor {i}": shares for i, shares in enumerate(self.actors)}
        bars |= {"uploader": self.uploader, "learner": self.learner}
        distillers = enumerate(self.distillers)
        return bars | {f"distiller {i}": shares for i, shares in distillers}


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
