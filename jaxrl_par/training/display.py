"""Progress while training runs: a live bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

from jaxrl_par.training.metrics import Row, scalar

_LINES = 20
_LEVELS = "▁▂▃▄▅▆▇█"


@runtime_checkable
class Display(Protocol):
    """Shows how far training is."""

    def __enter__(self) -> "Display": ...

    def __exit__(self, *exception: object) -> None: ...

    def show(self, fraction: float, row: Row) -> None: ...


def display(name: str) -> Display:
    """The display that fits where the output goes."""
    return _Bar(name) if sys.stdout.isatty() else _Lines(name)


class _Lines:
    """A line whenever another 1/20 is done, so that logs stay short."""

    def __init__(self, name: str):
        self._name = name
        self._shown = -1

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def show(self, fraction: float, row: Row) -> None:
        if (part := int(fraction * _LINES)) > self._shown:
            self._shown = part
            left = _clock(_seconds_left(fraction, row["seconds"]))
            print(
                f"{self._name} {fraction:4.0%}  {_text(row)}  {left} left", flush=True
            )


class _Bar:
    """A rich progress bar. It has its own thread, and never draws in ours."""

    def __init__(self, name: str):
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self._task = self._progress.add_task(name, total=1.0, text="compiling")
        self._returns: list[float] = []

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def show(self, fraction: float, row: Row) -> None:
        left = _clock(_seconds_left(fraction, row["seconds"]))
        if (value := scalar(row.get("episode_return"))) is not None:
            self._returns.append(value)
        text = f"{_text(row)}  {sparkline(self._returns)}  {left} left"
        self._progress.update(self._task, completed=fraction, text=text)


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


def _seconds_left(fraction: float, seconds: float) -> float:
    return seconds * (1 - fraction) / fraction if fraction else 0.0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
