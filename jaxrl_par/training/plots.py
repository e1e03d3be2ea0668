"""The curve of a run as a picture, drawn without matplotlib's global state."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxrl_par.training.metrics import Row

_SECONDS = 10.0


class LiveCurve:
    """A sink that keeps `curve.png` up to date while training runs."""

    def __init__(self, path: Path, rows: Sequence[Row]):
        """`rows`: those of the run so far, to which others append."""
        self._path = path
        self._rows = rows
        self._next = time.monotonic() + _SECONDS

    def write(self, row: Row) -> None:
        if (now := time.monotonic()) >= self._next:
            draw_curve(self._rows, self._path)
            # A picture takes a moment: never more than a hundredth of the time.
            self._next = now + max(_SECONDS, 100 * (time.monotonic() - now))

    def flush(self) -> None:
        """A picture can be drawn again from metrics.jsonl."""

    def close(self) -> None:
        draw_curve(self._rows, self._path)


def draw_curve(rows: Sequence[Row], path: Path, metric: str = "episode_return") -> None:
    """Writes `metric` against environment steps; for a population, its mean and range.

    Rows without the metric are left out; without any, the picture is empty axes.
    """
    from matplotlib.figure import Figure

    known = [row for row in rows if row.get(metric) not in (None, [])]
    steps = [row["env_steps"] for row in known]
    values = [np.atleast_1d(np.array(row[metric], np.float64)) for row in known]
    known_values = [x[np.isfinite(x)] for x in values]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    mean = [x.mean() if x.size else np.nan for x in known_values]
    axes.plot(steps, mean, linewidth=1.5)
    if any(x.size > 1 for x in values):
        low = [x.min() if x.size else np.nan for x in known_values]
        high = [x.max() if x.size else np.nan for x in known_values]
        axes.fill_between(steps, low, high, alpha=0.2, linewidth=0)
    axes.set(xlabel="environment steps", ylabel=metric.replace("_", " "))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
