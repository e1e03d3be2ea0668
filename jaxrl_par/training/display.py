"""Progress while training runs: a live bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from itertools import pairwise

from jaxrl_par.training.metrics import Row, scalar

_LINES = 20
_LEVELS = "▁▂▃▄▅▆▇█"


Show = Callable[[float, Row], None]
"""(the fraction that is done, the newest row) -> nothing; shows how far training is"""


def display(name: str) -> AbstractContextManager[Show]:
    """The display that fits where the output goes."""
    return _bar(name) if sys.stdout.isatty() else _lines(name)


@contextmanager
def _lines(name: str) -> Iterator[Show]:
    """A line whenever another 1/20 is done, so that logs stay short."""
    shown = -1

    def show(fraction: float, row: Row) -> None:
        nonlocal shown
        if (part := int(fraction * _LINES)) > shown:
            shown, left = part, _left(fraction, row)
            print(f"{name} {fraction:4.0%}  {_text(row)}  {left} left", flush=True)

    yield show


@contextmanager
def _bar(name: str) -> Iterator[Show]:
    """A rich progress bar. It has its own thread, and never draws in ours."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    label, text = TextColumn("{task.description}"), TextColumn("{task.fields[text]}")
    progress = Progress(label, BarColumn(), TaskProgressColumn(), text)
    task = progress.add_task(name, total=1.0, text="compiling")
    returns: list[float] = []

    def show(fraction: float, row: Row) -> None:
        if (value := scalar(row.get("episode_return"))) is not None:
            returns.append(value)
        text = f"{_text(row)}  {sparkline(returns)}  {_left(fraction, row)} left"
        progress.update(task, completed=fraction, text=text)

    with progress:
        yield show


def sparkline(values: Sequence[float], width: int = 20) -> str:
    """A curve in one line of text; each character is a mean over a part of it."""
    if not values:
        return ""
    bounds = [len(values) * i // width for i in range(width + 1)]
    parts = [values[a:b] for a, b in pairwise(bounds) if b > a]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_LEVELS[round((x - low) / span * (len(_LEVELS) - 1))] for x in means)


def _text(row: Row) -> str:
    value = scalar(row.get("episode_return"))
    return (
        f"{row['env_steps']:,} steps  {row['steps_per_second']:,.0f} steps/s  return"
        f" {'-' if value is None else f'{value:.1f}'}"
    )


def _left(fraction: float, row: Row) -> str:
    left = row["seconds"] * (1 - fraction) / fraction if fraction else 0.0
    return str(timedelta(seconds=round(left)))
