"""The parallelism report as a table and as a picture."""

from pathlib import Path

from jaxrl_par.loops import Report
from jaxrl_par.training.plots import save

_COLORS = {
    "environment": "#4c72b0",
    "acting": "#55a868",
    "updating": "#c44e52",
    "uploading": "#8172b3",
    "publishing": "#ccb974",
    "distilling": "#64b5cd",
    "computing": "#55a868",
    "gradient": "#c44e52",
    "pulling": "#ccb974",
    "other": "#dddddd",
}
_WAITING = "#999999"


def text(report: Report) -> str:
    """A table for the terminal, with a line of advice under it."""
    return "\n".join([*report.lines(), f"  advice      {report.advice()}"])


def draw(report: Report, path: Path) -> None:
    """Writes bars of what each thread did, and the histogram of lags."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    times, lags = figure.subplots(1, 2, width_ratios=(2, 1))
    seen = set()
    for name, shares in report.bars().items():
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
    lags.set(xlabel="lag in updates", ylabel=report.counted)
    figure.suptitle(report.advice(), fontsize=9)
    save(figure, path)
