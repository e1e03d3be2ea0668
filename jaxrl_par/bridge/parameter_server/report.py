"""Where the time of workers goes, and what would make them faster."""

from dataclasses import dataclass
from typing import Any

from jaxrl_par.bridge.reports import Shares, ThreadsReport, mean_shares
from jaxrl_par.measured import Metric

METRICS = {
    "worker_steps_per_second": Metric(
        "environment steps per second", "whose gradients were pushed"
    ),
    "rejected_total": Metric("gradients", "refused since the start"),
    "stale_total": Metric("gradients", "of these, too old"),
    "outlying_total": Metric("gradients", "of these, with an outlying loss"),
    "skipped_total": Metric("gradients", "not finite, since the start"),
    "lag_max": Metric("updates", "the largest lag since the start"),
}

REASONS = {"stale": "too stale", "outlying": "outlying", "skipped": "not finite"}
"""Why a gradient was not applied, by metric."""


@dataclass(frozen=True, kw_only=True)
class ParameterServerReport(ThreadsReport):
    """A report of `topologies.workers`; an update is a push, applied or refused."""

    counted = "gradients"
    kind: str
    """The kind of store: lock, hogwild or server."""
    steps_per_second: float
    """Environment steps whose gradients were pushed."""
    refused: dict[str, int]
    """Gradients that were not applied, by metric: `rejected`, of which so many were too
    `stale` or `outlying`, or both, and the others came before a replay was ready;
    `skipped`, those that were not finite."""
    workers: list[Shares]
    shards: list[Shares]
    """Shares of the server's threads."""
    statistics: dict[str, float]
    """What only this kind of store counts: `lost_updates`, writes that another one
    overwrote, mean over arrays; `raced_share` of updates in which another thread wrote;
    `queue_depth`, pushes that a shard had before it."""

    def bars(self) -> dict[str, Shares]:
        bars = {f"worker {i}": shares for i, shares in enumerate(self.workers)}
        return bars | {f"shard {i}": shares for i, shares in enumerate(self.shards)}

    def numbers(self) -> dict[str, Any]:
        return {
            "worker_steps_per_second": self.steps_per_second,
            **{f"{name}_total": number for name, number in self.refused.items()},
            "lag_max": max(self.lags, default=0),
            **self.statistics,
        }

    def rates(self) -> str:
        counted = ", ".join(f"{n} {x:.3g}" for n, x in self.statistics.items())
        reasons = {n: x for n, x in self.refused.items() if x and n in REASONS}
        told = ", ".join(f"{x:,} {REASONS[n]}" for n, x in reasons.items())
        return (
            f"  {self.kind:<10}  {self.steps_per_second:,.0f} steps/s,"
            f" {self.updates / self.seconds:,.0f} updates/s;"
            f" {self.refused['rejected']:,} rejected"
            + (f"; {told}" if told else "")
            + (f"; {counted}" if counted else "")
        )

    def bottleneck(self) -> str:
        shares = mean_shares(self.workers)
        locked = shares.get("waiting for the lock", 0.0)
        pulling = shares.get("pulling", 0.0)
        updating = shares.get("updating", 0.0)
        stale, outlying = self.refused["stale"], self.refused["outlying"]
        if self.updates and stale > 0.2 * self.updates:
            return (
                f"{stale / self.updates:.0%} of the gradients were too stale:"
                " fewer workers, longer unrolls, or a larger max_staleness"
            )
        if self.updates and outlying > 0.2 * self.updates:
            return (
                f"{outlying / self.updates:.0%} of the gradients had outlying losses:"
                " a larger num_deviations, or smaller rewards"
            )
        if locked > 0.2:
            return (
                f"workers wait for the lock {locked:.0%} of the time: longer unrolls,"
                " a server with several shards, or hogwild"
            )
        if self.kind == "server" and pulling > 0.2:
            return (
                f"workers wait for the server {pulling:.0%} of the time: longer"
                " unrolls, or a lock"
            )
        if updating + pulling > 0.3:
            return (
                f"workers spend {updating + pulling:.0%} of the time with the store:"
                " longer unrolls, or more environments for each worker"
            )
        return "workers spend their time with environments and gradients"
