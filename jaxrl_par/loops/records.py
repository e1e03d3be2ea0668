"""A recorded schedule: which unrolls each update learned from, line by line.

A free run depends on which thread was faster. Written down, that is a list of integers
with which the run can be repeated serially, bit for bit.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

T = TypeVar("T")


class Entry(NamedTuple):
    """An unroll that was learned from, or dropped."""

    actor: int
    unroll: int
    generation: int
    """How often the actor's environments had been made anew."""
    version: int
    """Updates that the parameters which acted had seen, the oldest of several."""
    dropped: int = 0
    """1: it was too old, and not learned from."""
    runs: tuple[tuple[int, int], ...] = ()
    """Where several acted in turn: each of their versions, and for how many rows."""

    @property
    def versions(self) -> tuple[int, ...]:
        """All that acted."""
        return tuple(version for version, _ in self.runs) or (self.version,)

    def version_at(self, row: int) -> int:
        """The one that acted in a row of the unroll."""
        by_row = [version for version, rows in self.runs for _ in range(rows)]
        return by_row[row] if by_row else self.version


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
    """Writes a line for each update, on disk as soon as it is made.

    Where that fails, it is told, and nothing more is written: the run goes on, and what
    is there can be repeated up to that update.
    """

    def __init__(self, path: Path, first_update: int):
        """Continues a file; lines of later updates, after a crash, are dropped."""
        self._path = path
        self._file: BinaryIO | None = None
        self._num_bytes = 0
        with self._telling():
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
            if len(lines) < first_update:
                warnings.warn(
                    f"{path} has {len(lines)} of {first_update} updates: the run goes"
                    " on, but cannot be replayed",
                    stacklevel=2,
                )
            file = path.open("ab", buffering=0)
            self._num_bytes = sum(map(len, lines[:first_update]))
            file.truncate(self._num_bytes)
            self._file = file

    def write(self, entries: list[Entry] | list[Turn]) -> None:
        if (file := self._file) is None:
            return
        rows = [_short(x) if isinstance(x, Entry) else x for x in entries]
        left = memoryview(json.dumps(rows).encode() + b"\n")
        size = len(left)
        with self._telling():
            while left:
                left = left[file.write(left) :]
            self._num_bytes += size

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Where that fails too, who reads it leaves out half a line.
            with suppress(OSError):
                if self._file is not None:
                    self._file.truncate(self._num_bytes)
            self.close()
            warnings.warn(
                f"{self._path} cannot be written: {error.strerror}. The run goes on,"
                " and from here on it cannot be replayed",
                stacklevel=2,
            )


def _short(entry: Entry) -> tuple[Any, ...]:
    """Without the columns at the end that say what is usual."""
    if entry.runs:
        return entry
    return entry[:5] if entry.dropped else entry[:4]


def read(path: Path) -> list[list[Entry]]:
    """The entries of every update of actors.

    Raises:
      RecordError: no such file, or a line that is no list of entries. A last line that
        a crash cut off is left out.
    """

    def entry(row: Any) -> Entry:
        *numbers, runs = row if len(row) == 6 else (*row, [])
        pairs = tuple((_whole(acted), _whole(rows)) for acted, rows in runs)
        if len(numbers) == 4:
            numbers = [*numbers, 0]
        actor, unroll, generation, version, dropped = map(_whole, numbers)
        if dropped not in (0, 1):
            raise ValueError(f"{dropped} is neither learned from nor dropped")
        return Entry(actor, unroll, generation, version, dropped, pairs)

    return _read(path, lambda rows: [entry(row) for row in rows])


def read_turns(path: Path) -> list[Turn]:
    """The pushes of workers.

    Raises:
      RecordError: as `read`.
    """

    def turn(rows: Any) -> Turn:
        ((worker, unroll, generation, pushes),) = rows
        worker, unroll, generation = map(_whole, (worker, unroll, generation))
        return Turn(worker, unroll, generation, tuple(map(_whole, pushes)))

    return _read(path, turn)


def _read(path: Path, decode: Callable[[Any], T]) -> list[T]:
    if not path.is_file():
        raise RecordError(f"there is no recorded schedule at {path}")
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    updates = []
    for number, line in enumerate(lines, start=1):
        try:
            updates.append(decode(json.loads(line.decode())))
        except (ValueError, TypeError, RecursionError) as error:
            raise RecordError(f"{path}, line {number}: no schedule ({error})") from None
    return updates


def _whole(number: Any) -> int:
    if type(number) is not int:
        raise TypeError(f"{number!r} is no whole number")
    return number
