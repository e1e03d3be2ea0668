"""Tables and numbers of the page of results, in Markdown."""

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(shown, line))} |" for line in lines)


def shown(x: Any) -> str:
    """A number as short as it says enough, a list with commas; None is a dash."""
    if x is None:
        return "-"
    if isinstance(x, list | tuple):
        return ", ".join(map(shown, x))
    if not isinstance(x, float):
        return f"{x:,}" if isinstance(x, int) else str(x)
    size = abs(x)
    if size >= 1e6:
        return f"{x / 1e6:.2f} M"
    if size >= 1e4:
        return f"{x / 1e3:.0f} k"
    if size >= 1e3:
        return f"{x / 1e3:.1f} k"
    digits = 1 if size >= 20 else 2
    text = f"{round(x, digits) + 0.0:.{digits}f}"  # + 0.0: not -0
    return text.removesuffix(".0")


def by_seeds(group: tuple[str, ...], value: str) -> Callable[[Any], str]:
    """A table of cases that have a seed each."""

    def render(data: Any) -> str:
        found: dict[Any, list[float]] = {}
        for case in data["cases"]:
            found.setdefault(tuple(case[x] for x in group), []).append(case[value])
        rows = [
            (*key, values, median(float("inf") if x is None else x for x in values))
            for key, values in found.items()
        ]
        return table((*group, f"{value} of the seeds", "median"), rows)

    return render


def counted(what: str) -> Callable[[Any], str]:
    """How many of the trials ended as promised."""
    return lambda data: f"{data['clear']} of {data[what]} ended clearly."
