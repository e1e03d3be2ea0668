"""Where the time of workers goes, and what would make them faster."""

from dataclasses import dataclass
from typing import Any

from jaxrl_par.bridge.reports import Shares, ThreadsReport, mean_shares


@dataclass(frozen=True, kw_only=True)
class ParameterServerReport(ThreadsReport):
    """A report of `topologies.workers`; an update is a push, applied or refused."""

    counted = "gradients"
    kind: str
    """The kind of store: lock, hogwild or server."""
    steps_per_second: float
    """Environment steps whose gradients were pushed."""
    rejected: int
    """Gradients that were too stale for `StalenessConfig`."""
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
            "rejected_total": self.rejected,
            "lag_max": max(self.lags, default=0),
            **self.statistics,
        }

    def rates(self) -> str:
        counted = ", ".join(f"{n} {x:.3g}" for n, x in self.statistics.items())
        return (
            f"  {self.kind:<10}  {self.steps_per_second:,.0f} steps/s,"
            f" {self.updates / self.seconds:,.0f} updates/s;"
            f" {self.rejected:,} rejected" + (f"; {counted}" if counted else "")
        )

    def bottleneck(self) -> str:
        shares = mean_shares(self.workers)
        locked = shares.get("waiting for the lock", 0.0)
        pulling = shares.get("pulling", 0.0)
        updating = shares.get("updating", 0.0)
        if self.updates and self.rejected > 0.2 * self.updates:
            return (
                f"{self.rejected / self.updates:.0%} of the gradients were too stale:"
                " fewer workers, longer unrolls, or a larger max_staleness"
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
