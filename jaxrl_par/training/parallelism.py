"""The parallelism report as a table and as a picture."""

from pathlib import Path

from jaxrl_par.bridge.report import Report, mean_shares

_COLORS = {
    "environment": "#4c72b0",
    "acting": "#55a868",
    "updating": "#c44e52",
    "uploading": "#8172b3",
    "publishing": "#ccb974",
    "distilling": "#64b5cd",
    "other": "#dddddd",
}
_WAITING = "#999999"


def text(report: Report) -> str:
    """A table for the terminal, with a line of advice under it."""
    lines = [
        f"  actors      {report.actor_steps_per_second:,.0f} steps/s   learner"
        f" {report.learner_steps_per_second:,.0f} steps/s",
        *(
            f"  {name:<10}  {_line(shares)}"
            for name, shares in _threads(report).items()
        ),
        f"  queue       {report.queue_depth:.1f} of {report.queue_size} unrolls waited"
        f" on average; {report.uploaded_bytes / 1e6:,.1f} MB uploaded",
        f"  lag         {report.lag():.2f} updates on average:"
        f" {', '.join(_lags(report)) or 'nothing was learned'}",
        *([f"  lessons     {_lessons(report)}"] if report.lessons else []),
        f"  compiling   {report.compile_seconds:.1f} s for the learner",
        f"  lost        {report.restarts} restarts, {report.dropped_rows:,} rows"
        " acted and not learned from",
    ]
    if report.abandoned:
        lines.append(f"  left behind {', '.join(report.abandoned)}")
    return "\n".join([*lines, f"  advice      {report.advice()}"])


def draw(report: Report, path: Path) -> None:
    """Writes bars of what each thread did, and the histogram of lags."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    times, lags = figure.subplots(1, 2, width_ratios=(2, 1))
    bars = {f"actor {i}": shares for i, shares in enumerate(report.actors)}
    bars |= {"uploader": report.uploader, "learner": report.learner}
    bars |= {f"distiller {i}": shares for i, shares in enumerate(report.distillers)}
    seen = set()
    for name, shares in bars.items():
        left = 0.0
        for doing, share in sorted(shares.items(), key=lambda x: (x[0] == "other", x)):
            label = "waiting" if doing.startswith("waiting") else doing
            times.barh(
                name, share, left=left, color=_COLORS.get(doing, _WAITING),
                label=None if label in seen else label,
            )  # fmt: skip
            seen.add(label)
            left += share
    times.invert_yaxis()
    times.set(xlabel="share of the time", xlim=(0, 1))
    times.legend(fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    lags.bar(list(report.lags), list(report.lags.values()), color=_COLORS["acting"])
    lags.set(xlabel="lag in updates", ylabel="rows")
    figure.suptitle(report.advice(), fontsize=9)
    figure.savefig(path, dpi=120)


def _threads(report: Report) -> dict[str, dict[str, float]]:
    threads = {
        f"{len(report.actors)} actors": mean_shares(report.actors),
        "uploader": report.uploader,
        "learner": report.learner,
    }
    if report.distillers:
        threads["distillers"] = mean_shares(report.distillers)
    return threads


def _line(shares: dict[str, float]) -> str:
    largest = sorted(shares.items(), key=lambda x: -x[1])
    return ", ".join(f"{doing} {share:.0%}" for doing, share in largest if share > 0)


def _lags(report: Report) -> list[str]:
    rows = sum(report.lags.values())
    return [f"{lag}: {count / rows:.0%}" for lag, count in report.lags.items()]


def _lessons(report: Report) -> str:
    each = ", ".join(f"{count:,}" for count in report.lessons)
    return f"{sum(report.lessons):,} by {len(report.lessons)} distillers: {each}"
