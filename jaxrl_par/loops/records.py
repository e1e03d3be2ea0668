"""A recorded schedule: which unrolls each update learned from, line by line.

A free run depends on which thread was faster. Written down, that is a list of integers
with which the run can be repeated serially, bit for bit.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Entry(NamedTuple):
    """An unroll that was learned from."""

    actor: int
    unroll: int
    generation: int
    """How often the actor's environments had been made anew."""
    version: int
    """Updates that the parameters which acted had seen."""


class Turn(NamedTuple):
    """A push of a worker, applied or refused."""

    worker: int
    unroll: int
    generation: int
    read: tuple[int, ...]
    """Pushes that were in each shard of the parameters that it used."""


class RecordError(ValueError):
    """A file is no schedule, or not that of this run."""


class Recorder:
    """Writes a line for each update, on disk as soon as it is made."""

    def __init__(self, path: Path, first_update: int):
        """Continues a file; lines of later updates, after a crash, are dropped."""
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        if len(lines) < first_update:
            warnings.warn(
                f"{path} has {len(lines)} of {first_update} updates: the run goes on,"
                " but cannot be replayed",
                stacklevel=2,
            )
        path.write_text("".join(lines[:first_update]))
        self._file = path.open("a")

    def write(self, entries: list[Entry] | list[Turn]) -> None:
        self._file.write(json.dumps(entries) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[list[Entry]]:
    """The entries of every update of actors.

    Raises:
      RecordError: no such file, or a line that is no list of entries. A last line that
        a crash cut off is left out.
    """
    return _read(path, lambda rows: [Entry(*map(int, row)) for row in rows])


def read_turns(path: Path) -> list[Turn]:
    """The pushes of workers.

    Raises:
      RecordError: as `read`.
    """

    def turn(rows: Any) -> Turn:
        ((worker, unroll, generation, pushes),) = rows
        return Turn(int(worker), int(unroll), int(generation), tuple(map(int, pushes)))

    return _read(path, turn)


def _read(path: Path, decode: Callable[[Any], T]) -> list[T]:
    if not path.is_file():
        raise RecordError(f"there is no recorded schedule at {path}")
    *lines, _ = path.read_text().split("\n")
    updates = []
    for number, line in enumerate(lines, start=1):
        try:
            updates.append(decode(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise RecordError(f"{path}, line {number}: no schedule ({error})") from None
    return updates
