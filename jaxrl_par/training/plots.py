"""The curve of a run as a picture, drawn without matplotlib's global state."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxrl_par.training.metrics import Row


def draw_curve(rows: Sequence[Row], path: Path, metric: str = "episode_return") -> None:
    """Writes `metric` against environment steps; for a population, its mean and range.

    Rows without the metric are left out; without any, the picture is empty axes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = [row for row in rows if row.get(metric) not in (None, [])]
    steps = [row["env_steps"] for row in known]
    values = [np.atleast_1d(np.array(row[metric], np.float64)) for row in known]
    known_values = [x[np.isfinite(x)] for x in values]
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
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
