"""Progress while training runs: live on a terminal and in a notebook, plain lines
elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from itertools import pairwise

from jaxrl_par.training.rows import Row, scalar
from jaxrl_par.training.sessions import in_notebook

_LINES = 20
_REDRAWN = 0.2  # seconds
_LEVELS = "▁▂▃▄▅▆▇█"


Show = Callable[[float, Row], None]
"""(the fraction that is done, the newest row) -> nothing; shows how far training is"""


def display(name: str) -> AbstractContextManager[Show]:
    """The display that fits where the output goes."""
    if in_notebook():
        return _redrawn(name)
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
    text_of = _texts()

    def show(fraction: float, row: Row) -> None:
        progress.update(task, completed=fraction, text=text_of(fraction, row))

    with progress:
        yield show


@contextmanager
def _redrawn(name: str) -> Iterator[Show]:
    """A line in the output of a cell, drawn anew a few times a second."""
    from IPython.display import display

    def as_text(text: str) -> dict[str, str]:
        return {"text/plain": text}

    handle = display(as_text(f"{name}  compiling"), raw=True, display_id=True)
    text_of, drawn = _texts(), 0.0

    def show(fraction: float, row: Row) -> None:
        nonlocal drawn
        text = f"{name} {fraction:4.0%}  {text_of(fraction, row)}"
        if handle and (fraction == 1 or time.monotonic() > drawn + _REDRAWN):
            handle.update(as_text(text), raw=True)
            drawn = time.monotonic()

    yield show


def _texts() -> Callable[[float, Row], str]:
    """What a live line says, with a curve of the returns so far."""
    returns: list[float] = []

    def text(fraction: float, row: Row) -> str:
        if (value := scalar(row.get("episode_return"))) is not None:
            returns.append(value)
        return f"{_text(row)}  {sparkline(returns)}  {_left(fraction, row)} left"

    return text


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
