"""Where the time of actors and learner goes, and what would make them faster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxrl_par.bridge.central.desk import Batches
from jaxrl_par.bridge.reports import Shares, ThreadsReport, mean_shares
from jaxrl_par.loops.pace import PaceConfig
from jaxrl_par.measured import Metric

METRICS = {
    "actor_steps_per_second": Metric("environment steps per second", "that were acted"),
    "learner_steps_per_second": Metric(
        "environment steps per second", "that were learned from"
    ),
    "queue_depth": Metric("unrolls", "waiting when one was taken"),
    "uploaded_bytes": Metric("bytes", "brought to devices since the start"),
    "samples_per_insert": Metric(
        "rows", "trained for each row inserted, where the learner does not wait"
    ),
    "lessons": Metric("lessons", "that distillers learned from"),
    "learned_share_min": Metric(
        "share of rows", "learned from, of the actor with the least; with a quorum"
    ),
    "stale_rows": Metric("rows", "dropped because they were too old; with a quorum"),
    "stuck_actors": Metric("actors", "that never come to newer parameters"),
}


@dataclass(frozen=True, kw_only=True)
class ActorLearnerReport(ThreadsReport):
    """A report of `topologies.threads`."""

    counted = "rows"
    actor_steps_per_second: float
    """Environment steps that were acted."""
    learner_steps_per_second: float
    """Environment steps that were learned from."""
    actors: list[Shares]
    uploader: Shares
    learner: Shares
    queue_depth: float
    """Mean number of unrolls that waited in the queue when one was taken."""
    queue_size: int
    uploaded_bytes: int
    learned_shares: Sequence[float] = ()
    """Of the rows of each actor, those that were learned from; with a quorum."""
    stale_rows: Sequence[int] = ()
    """Of each actor, those that were dropped because they were too old."""
    max_lag: int | None = None
    """With a quorum: the updates after which they are."""
    samples_per_insert: float | None = None
    """Decoupled: rows trained for each row inserted, since there was enough."""
    pace: PaceConfig | None = None
    """Decoupled: what was asked for."""
    distillers: Sequence[Shares] = ()
    lessons: Sequence[int] = ()
    """How many each distiller learned from."""
    batches: Batches | None = None
    """Central inference: what its thread did."""
    stuck: Mapping[int, int] = field(default_factory=dict)
    """Actors that never come to newer parameters, and how many updates they are old."""

    def bars(self) -> dict[str, Shares]:
        bars = {f"actor {i}": shares for i, shares in enumerate(self.actors)}
        bars |= {"uploader": self.uploader, "learner": self.learner}
        bars |= {"inference": self.batches.shares} if self.batches else {}
        return bars | {f"distiller {i}": x for i, x in enumerate(self.distillers)}

    def numbers(self) -> dict[str, Any]:
        return {
            "actor_steps_per_second": self.actor_steps_per_second,
            "learner_steps_per_second": self.learner_steps_per_second,
            "queue_depth": self.queue_depth,
            "uploaded_bytes": self.uploaded_bytes,
            **({"samples_per_insert": self.samples_per_insert} if self.pace else {}),
            **({"lessons": sum(self.lessons)} if self.lessons else {}),
            **self._numbers_of_quorum(),
            **(self.batches.numbers() if self.batches else {}),
            **({"stuck_actors": len(self.stuck)} if self.stuck else {}),
        }

    def _numbers_of_quorum(self) -> dict[str, Any]:
        if not self.learned_shares:
            return {}
        shares = {"learned_share_min": min(self.learned_shares)}
        return shares | {"stale_rows": sum(self.stale_rows)}

    def starved(self) -> str:
        """Who acted and was never learned from, in a sentence; empty if nobody."""
        rows = enumerate(zip(self.learned_shares, self.stale_rows, strict=True))
        if not (names := [str(i) for i, (share, n) in rows if n and not share]):
            return ""
        whom = f"actor{'s' * (len(names) > 1)} {', '.join(names)}"
        return (
            f"nothing of {whom} was learned from: all was older than max_lag ="
            f" {self.max_lag} updates. Raise it, or the quorum"
        )

    def rates(self) -> str:
        return (
            f"  actors      {self.actor_steps_per_second:,.0f} steps/s   learner"
            f" {self.learner_steps_per_second:,.0f} steps/s"
        )

    def details(self) -> list[str]:
        lines = [
            f"  queue       {self.queue_depth:.1f} of {self.queue_size} unrolls waited"
            f" on average; {self.uploaded_bytes / 1e6:,.1f} MB uploaded"
        ]
        if self.learned_shares:
            shares = ", ".join(f"{share:.0%}" for share in self.learned_shares)
            lines.append(
                f"  quorum      learned from {shares} of the rows of each actor;"
                f" {sum(self.stale_rows):,} rows were too old"
            )
        if self.pace is not None:
            lines.append(f"  pace        {self._pace_told(self.pace)}")
        if self.lessons:
            lines.append(
                f"  lessons     {sum(self.lessons):,} by {len(self.lessons)}"
                f" distillers: {', '.join(f'{count:,}' for count in self.lessons)}"
            )
        if self.batches is not None:
            lines.append(f"  batches     {self.batches.told()}")
        lines += [
            f"  ALARM       actor {index} acts with parameters that are {lag} updates"
            " old, one more with each update: it never pulls newer ones"
            for index, lag in self.stuck.items()
        ]
        return lines

    def _at_ratio(self) -> bool:
        """Whether the learner did about as much as it may for what was inserted."""
        asked = self.pace and self.pace.samples_per_insert
        return bool(asked and (self.samples_per_insert or 0) > 0.9 * asked)

    def _pace_told(self, pace: PaceConfig) -> str:
        ratio = self.samples_per_insert
        told = "nothing inserted" if ratio is None else f"{ratio:.2f} samples an insert"
        if pace.samples_per_insert is None:
            return f"{told}; neither waits for the other"
        ahead = pace.run_ahead
        most = "no bound" if ahead is None else f"at most {ahead} batches"
        return f"{told}, at most {pace.samples_per_insert:g}; actors ahead: {most}"

    def advice(self) -> str:
        if self.stuck:
            actors = ", ".join(map(str, self.stuck))
            return f"actors {actors} never pull newer parameters: find out why"
        return super().advice()

    def bottleneck(self) -> str:
        if told := self.starved():
            return told
        learner_waits = self.learner.get("waiting for unrolls", 0.0)
        distilling = self.learner.get("waiting for distillers", 0.0)
        actors = mean_shares(self.actors)
        asking = actors.pop("waiting for inference", 0.0)
        blocked = sum(x for n, x in actors.items() if n.startswith("waiting for "))
        uploading = self.uploader.get("uploading", 0.0)
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
            if self._at_ratio():
                return (
                    f"learner waits {learner_waits:.0%} of the time, because it has"
                    " trained as much as pace.samples_per_insert allows: more actors,"
                    " or a larger ratio"
                )
            if self.batches and asking > actors.get("environment", 0.0):
                return self._inference(self.batches, asking)
            acting = actors.get("acting", 0.0)
            if acting > actors.get("environment", 0.0):
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

    def _inference(self, batches: Batches, asking: float) -> str:
        busy = batches.shares.get("acting", 0.0)
        told = f"actors wait for inference {asking:.0%} of the time, which"
        empty = batches.fill < 0.5
        if busy > 0.5:
            return (
                f"{told} acts {busy:.0%} of the time, with batches {batches.fill:.0%}"
                f" full: a smaller {'central.max_batch' if empty else 'network'}"
            )
        return f"{told} acts {busy:.0%} of the time: a smaller central.max_wait_ms"
