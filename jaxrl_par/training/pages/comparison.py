"""Several runs as a page: curves with bands over seeds, ends, and what differs."""

import json
from pathlib import Path
from typing import Any

from jaxrl_par.training.pages.rendering import write_page
from jaxrl_par.training.pages.svg import Curve, chart
from jaxrl_par.training.side_by_side import Comparison


def write_comparison(comparison: Comparison, path: str | Path) -> None:
    """Writes the comparison as one file for a browser.

    Raises:
      TrainingError: it cannot be written there.
    """
    groups = comparison.groups
    styles = {group.name: f"c{index % 6}" for index, group in enumerate(groups)}
    panels: dict[str, list[Curve | None]] = {}
    for index, group in enumerate(groups):
        steps, (mean, low, high) = group.curve
        # A curve has the same style in every panel: the place of its group.
        panel = panels.setdefault(group.environment, [None] * len(groups))
        panel[index] = Curve(group.name, steps, mean, low, high)
    write_page(
        Path(path),
        "comparison.html",
        title=f"{comparison.metric.replace('_', ' ')}: {len(groups)} experiments",
        notes=list(comparison.notes),
        metric=comparison.metric.replace("_", " "),
        charts=[(name, chart(name, curves)) for name, curves in panels.items()],
        legend=list(styles.items()),
        ends=comparison.ends(),
        changed=[
            (name, *map(_told, values))
            for name, values in comparison.differences.items()
        ],
    )


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
