"""Curves of runs as pictures, drawn without matplotlib's global state."""

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxrl_par.errors import RefusedError, either
from jaxrl_par.training.files import write_bytes
from jaxrl_par.training.intervals import Interval
from jaxrl_par.training.rows import Row

ENDS = (".jpg", ".pdf", ".png", ".svg")
"""Of the names of pictures."""

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
    axes.set(xlabel="environment steps", ylabel=_words(metric))
    _plain(axes)
    save(figure, path)


class Band(NamedTuple):
    """A curve of several seeds."""

    label: str
    steps: Float[np.ndarray, " G"]
    values: Interval


def draw_bands(panels: Mapping[str, Sequence[Band]], path: Path, metric: str) -> None:
    """Writes curves with their intervals; `panels` are by name of the environment."""
    from matplotlib.figure import Figure

    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(6.5 * columns, 4.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, (title, bands) in zip(grid, panels.items(), strict=False):
        for label, steps, (mean, low, high) in bands:
            # A curve of one point is no line.
            marker = "o" if len(set(steps)) == 1 else None
            axes.plot(steps, mean, linewidth=1.5, label=label, marker=marker)
            if low is not None and high is not None:
                axes.fill_between(steps, low, high, alpha=0.2, linewidth=0)
        axes.set(title=title, xlabel="environment steps", ylabel=_words(metric))
        axes.legend(fontsize=8, frameon=False)
        _plain(axes)
    save(figure, path)


def check_name(path: str | Path) -> None:
    """Accepts what `save` can write.

    Raises:
      RefusedError: the name ends otherwise.
    """
    if Path(path).suffix.lower() not in ENDS:
        raise RefusedError(f"{path} must end in {either(ENDS)}")


def save(figure: Any, path: Path) -> None:
    """Writes a figure of matplotlib as what the name's end says.

    Raises:
      RefusedError: as `check_name`.
      FileError, DiskFullError: it cannot be written; an old picture is as it was.
    """
    check_name(path)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120, format=path.suffix[1:].lower())
    write_bytes(path, drawn.getvalue())


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _plain(axes: Any) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
