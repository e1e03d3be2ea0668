"""Where the time of workers goes, and what would make them faster."""

from typing import Any, NamedTuple

from jaxrl_par.bridge.reports import lag_lines, line, lost_lines, mean_shares


class ParameterServerReport(NamedTuple):
    """One run of `topologies.workers`, from its start or resumption."""

    kind: str
    """Of store: lock, hogwild or server."""
    seconds: float
    """Since the threads started, without pauses for evaluation and saving."""
    steps_per_second: float
    """Environment steps whose gradients were pushed."""
    updates: int
    """Pushes, applied or refused."""
    rejected: int
    """Gradients that were too stale for `StalenessConfig`."""
    workers: list[dict[str, float]]
    """Share of the time of each worker, by what it did or waited for."""
    shards: list[dict[str, float]]
    """As above, of the server's threads."""
    lags: dict[int, int]
    """Gradients by the updates between the parameters that they used and those that
    they changed."""
    statistics: dict[str, float]
    """Of this kind of store: `lost_updates`, writes that another one overwrote, mean
    over arrays; `raced_share` of updates in which somebody else wrote;
    `queue_depth`, pushes that a shard had before it."""
    compile_seconds: float
    restarts: int
    dropped_rows: int
    """Acted, and then not learned from: of restarted workers, or at the end."""
    abandoned: list[str]

    @property
    def counted(self) -> str:
        return "gradients"

    def lag(self) -> float:
        """Mean staleness, in updates."""
        count = sum(self.lags.values())
        return sum(lag * n for lag, n in self.lags.items()) / count if count else 0.0

    def advice(self) -> str:
        """What to change first, in a sentence."""
        shares = mean_shares(self.workers)
        locked = shares.get("waiting for the lock", 0.0)
        pulling = shares.get("pulling", 0.0)
        updating = shares.get("updating", 0.0)
        if self.restarts:
            return (
                f"environments were made anew {self.restarts} times: find out why"
                " before anything else"
            )
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

    def row(self) -> dict[str, Any]:
        """For `metrics.jsonl`; shares are means over threads."""
        threads = {
            "worker": mean_shares(self.workers),
            "shard": mean_shares(self.shards),
        }
        shares = {
            f"{thread}_{doing.replace(' ', '_')}": share
            for thread, doings in threads.items()
            for doing, share in doings.items()
        }
        return {
            "worker_steps_per_second": self.steps_per_second,
            "lag": self.lag(),
            "lag_max": max(self.lags, default=0),
            "rejected_total": self.rejected,
            "restarts": self.restarts,
            "dropped_rows": self.dropped_rows,
            **self.statistics,
            **shares,
        }

    def lines(self) -> list[str]:
        """Of the table in the terminal."""
        counted = ", ".join(f"{n} {x:.3g}" for n, x in self.statistics.items())
        name = f"{len(self.workers)} workers"
        rows = [f"  {name:<10}  {line(mean_shares(self.workers))}"]
        if self.shards:
            name = f"{len(self.shards)} shards"
            rows.append(f"  {name:<10}  {line(mean_shares(self.shards))}")
        return [
            f"  {self.kind:<10}  {self.steps_per_second:,.0f} steps/s,"
            f" {self.updates / self.seconds:,.0f} updates/s;"
            f" {self.rejected:,} rejected" + (f"; {counted}" if counted else ""),
            *rows,
            *lag_lines(self.lag(), self.lags, "updates"),
            f"  compiling   {self.compile_seconds:.1f} s",
            *lost_lines(self.restarts, self.dropped_rows, self.abandoned),
        ]

    def bars(self) -> dict[str, dict[str, float]]:
        """Shares of the time by thread, for the picture."""
        bars = {f"worker {i}": shares for i, shares in enumerate(self.workers)}
        return bars | {f"shard {i}": shares for i, shares in enumerate(self.shards)}
