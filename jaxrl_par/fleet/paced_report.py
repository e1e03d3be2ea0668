"""Who met whom of learners at their own pace, and where their time goes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxrl_par.bridge.reports import Shares, ThreadsReport, mean_shares
from jaxrl_par.fleet.turns import Settled
from jaxrl_par.measured import Metric

METRICS = {
    "learner_steps_per_second": Metric(
        "environment steps per second", "of all learners, that were learned from"
    ),
    "turns_fewest": Metric(
        "updates", "of the learner that had the fewest since the start"
    ),
    "turns_most": Metric("updates", "of the learner that had the most"),
}


class Meetings:
    """What is counted of turns."""

    def __init__(self) -> None:
        self.updates = self.env_steps = 0
        self.lags: Counter[int] = Counter()
        self.turns: Counter[int] = Counter()
        """By learner."""
        self.met: Counter[tuple[int, int]] = Counter()
        """By learner whose turn it was, and whom it met."""

    def add(self, settled: Settled) -> None:
        """Counts the turns of another time."""
        first = settled.number - len(settled.taken)
        for number, taken in enumerate(settled.taken, start=first):
            self.lags[number - taken.read] += 1
            self.turns[taken.learner] += 1
            if taken.partner != taken.learner:
                self.met[taken.learner, taken.partner] += 1
        self.updates += len(settled.taken)
        self.env_steps = settled.env_steps


@dataclass(frozen=True, kw_only=True)
class PacedReport(ThreadsReport):
    """A report of learners at their own pace; an update is a turn of one of them."""

    counted = "turns"
    steps_per_second: float
    """Environment steps that were learned from."""
    learners: Sequence[Shares]
    turns: Sequence[int]
    """Updates of each learner."""
    met: dict[tuple[int, int], int]
    """How often a learner, whose turn it was, met another one."""

    def bars(self) -> dict[str, Shares]:
        return {f"learner {i}": shares for i, shares in enumerate(self.learners)}

    def numbers(self) -> dict[str, Any]:
        return {
            "learner_steps_per_second": self.steps_per_second,
            "turns_fewest": min(self.turns),
            "turns_most": max(self.turns),
        }

    def rates(self) -> str:
        return (
            f"  own pace    {self.steps_per_second:,.0f} steps/s,"
            f" {self.updates / self.seconds:,.1f} updates/s"
        )

    def details(self) -> list[str]:
        return [self._meetings(i, number) for i, number in enumerate(self.turns)]

    def bottleneck(self) -> str:
        shares = mean_shares(self.learners)
        meeting = shares.get("meeting", 0.0)
        if meeting > 0.3:
            return (
                f"learners spend {meeting:.0%} of the time with meetings: longer"
                " unrolls, or a larger gossip.interval"
            )
        if max(self.turns) > 4 * max(min(self.turns), 1):
            slow = self.turns.index(min(self.turns))
            return f"learner {slow} is much slower than others: see what runs there"
        return "learners spend their time with environments and gradients"

    def _meetings(self, learner: int, turns: int) -> str:
        others = range(len(self.turns))
        met = [f"{j}: {n:,}" for j in others if (n := self.met.get((learner, j), 0))]
        told = f"; in them it met {', '.join(met)}" if met else ""
        return f"  learner {learner:<3} {turns:,} turns{told}"
