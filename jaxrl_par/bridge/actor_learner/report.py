"""Where the time of actors and learner goes, and what would make them faster."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxrl_par.bridge.reports import lag_lines, line, lost_lines, mean_shares

_WAITS = "waiting for "


class ActorLearnerReport(NamedTuple):
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

    @property
    def counted(self) -> str:
        return "rows"

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
