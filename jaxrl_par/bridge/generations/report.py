"""Where the time of workers goes that play generations."""

from dataclasses import dataclass
from typing import Any

from jaxrl_par.bridge.reports import Shares, ThreadsReport, mean_shares


@dataclass(frozen=True, kw_only=True)
class GenerationsReport(ThreadsReport):
    """A report of `topologies.generations`; an update is a generation."""

    counted = "parts"
    steps_per_second: float
    """Environment steps that were learned from."""
    dropped: int
    """Members whose fitness came when their generation was closed."""
    dropped_fitness: float
    """Their mean, NaN if there are none."""
    workers: list[Shares]
    learner: Shares

    def bars(self) -> dict[str, Shares]:
        bars = {f"worker {i}": shares for i, shares in enumerate(self.workers)}
        return bars | {"learner": self.learner}

    def numbers(self) -> dict[str, Any]:
        return {"worker_steps_per_second": self.steps_per_second}

    def rates(self) -> str:
        dropped = (
            f"; {self.dropped:,} members too late, their mean fitness"
            f" {self.dropped_fitness:.4g}"
        )
        return (
            f"  generations {self.steps_per_second:,.0f} steps/s,"
            f" {self.updates / self.seconds:,.2f} updates/s"
            + dropped
            * bool(self.dropped)
        )

    def bottleneck(self) -> str:
        waiting = mean_shares(self.workers).get("waiting for parts", 0.0)
        if waiting > 0.3:
            return (
                f"workers wait {waiting:.0%} of the time for the last ones of a"
                " generation: more parts than workers, a smaller cap_factor, or a"
                " quorum"
            )
        return "workers spend their time with episodes"
