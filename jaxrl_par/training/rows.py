"""Metrics on the host: means over a chunk of updates, written where they are read."""

import json
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Shaped

from jaxrl_par.errors import RefusedError
from jaxrl_par.hosts.collective import fetched
from jaxrl_par.training.failures import TrainingError, tell
from jaxrl_par.training.files import (
    FileError,
    parse_json,
    read_bytes,
    shortened,
    write_text,
    writing,
)
from jaxrl_par.types import Count, Mean

Value = int | float | None | list[float | None]
"""A list has a number for each member of a population; None is no finite number."""
Row = dict[str, Any]
"""`updates`, `env_steps`, `seconds`, `steps_per_second`, and a `Value` a metric."""
Results = dict[str, Value]
"""Of an evaluation, by name."""

_NEEDED = {"updates": (int,), "env_steps": (int,)}
"""What every row has, and its types."""


@runtime_checkable
class Sink(Protocol):
    """Somewhere that rows are written to."""

    def write(self, row: Row) -> None: ...

    def flush(self) -> None:
        """Writes all rows to disk: after this a crash loses none."""

    def close(self) -> None: ...


def summarize(
    metrics: Mapping[str, Shaped[Array | np.ndarray, "..."] | Mean],
) -> dict[str, Value]:
    """Means over the updates of a chunk, the leading axis; None where not finite.

    A `Mean` is the sum of its totals over the sum of its counts, so that every episode
    weighs the same, and None where nothing was counted.

    Raises:
      RefusedError: a metric is no real number.
    """
    for name, value in metrics.items():
        parts = value if isinstance(value, Mean) else [value]
        kinds = [getattr(x, "dtype", type(x)) for x in parts]
        if wrong := [x for x in kinds if not _is_number(x)]:
            raise RefusedError(f"metric {name!r} must be real numbers, got {wrong[0]}")
    return {name: _mean(value) for name, value in fetched(dict(metrics)).items()}


def results(returned: Any) -> Results:
    """What an evaluation returned, as rows have it: numbers of Python, NumPy or JAX.

    Raises:
      RefusedError: it is something else.
    """
    if not isinstance(returned, Mapping):
        found = f"{type(returned).__name__} {returned!r:.60}"
        raise RefusedError(f"evaluate must return numbers by name, got {found}")
    numbers = {name: _numbers(value) for name, value in returned.items()}
    for name, value in numbers.items():
        if not isinstance(name, str) or value is None:
            raise RefusedError(
                f"evaluate must return numbers by name, got {returned[name]!r:.60} for"
                f" {name!r}"
            )
    return {n: _finite(x.tolist()) for n, x in numbers.items() if x is not None}


def joined(row: Row, more: Mapping[str, Value]) -> Row:
    """A row with more of it.

    Raises:
      RefusedError: both have something of the same name.
    """
    if twice := sorted(row.keys() & more.keys()):
        raise RefusedError(
            f"a row of metrics has its own {twice[0]}: call that of the program or of"
            " its evaluation otherwise"
        )
    return {**row, **more}


def total(count: Count) -> int:
    """The counter, summed over the members of a population."""
    millions, units = (int(np.sum(x, dtype=np.int64)) for x in fetched(count))
    return millions * 10**6 + units


def scalar(value: Value) -> int | float | None:
    """The value, or the mean over the members that have one."""
    if not isinstance(value, list):
        return value
    known = [x for x in value if x is not None]
    return sum(known) / len(known) if known else None


class JsonLines:
    """`metrics.jsonl`, a row for each line, on disk as soon as it is written.

    Where the file cannot be written, that is told once, and training goes on: rows are
    kept, and written as soon as there is room again.
    """

    def __init__(self, path: Path, updates: int = 0):
        """Continues the file after the row of `updates`; later rows are dropped."""
        self.path = path
        self.rows: list[Row] = []
        self._file: BinaryIO | None = None
        self._told = False
        self._written = 0  # rows, and the bytes that they take
        self._num_bytes = 0
        with self._telling():
            self.rows = [row for row in self._read() if row["updates"] <= updates]
            self._rewrite()

    def write(self, row: Row) -> None:
        """Raises ValueError for a number that is not finite."""
        _line(row)
        self.rows.append(row)
        with self._telling():
            if self._file is None:
                self._rewrite()
            self._append()

    def flush(self) -> None:
        with self._telling():
            # The folder may have been moved, and made anew for a checkpoint.
            is_gone = not self.path.exists() and self.path.parent.exists()
            file = self._rewrite() if is_gone or self._file is None else self._file
            self._append()
            os.fsync(file.fileno())

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()

    def _read(self) -> list[Row]:
        try:
            return read_rows(self.path)
        except FileError:
            if self.path.is_file():  # which may be read another time
                self.path.replace(self.path.with_name(f"unread-{self.path.name}"))
            raise

    def _rewrite(self) -> BinaryIO:
        if self._file is not None:
            self._file.close()
        self._file = None
        write_text(self.path, "".join(map(_line, self.rows)))
        with writing(self.path, 0):
            self._file = self.path.open("r+b", buffering=0)
        self._written = len(self.rows)
        self._num_bytes = self._file.seek(0, os.SEEK_END)
        return self._file

    def _append(self) -> None:
        """Writes the rows that are not there, over half a line of a full disk."""
        assert self._file is not None
        data = "".join(map(_line, self.rows[self._written :])).encode()
        with writing(self.path, len(data)):
            self._file.truncate(self._num_bytes)
            self._file.seek(self._num_bytes)
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
        self._written = len(self.rows)
        self._num_bytes += len(data)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (TrainingError, OSError) as error:
            if not self._told:
                tell(f"{error}. Training goes on without the newest metrics")
            self._told = True


class TensorBoard:
    """Event files, against environment steps; a population is there as its mean.

    Each event is written at once: tensorboardX's own thread ends with the first error,
    and who logs then waits for it for ever.
    """

    def __init__(self, directory: Path, purge_step: int | None = None):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import (
            Event,  # pyright: ignore[reportAttributeAccessIssue]
            SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
        )
        from tensorboardX.summary import scalar as summary_of

        self._event, self._summary_of = Event, summary_of
        directory.mkdir(parents=True, exist_ok=True)
        # Files of the same second have the same name, and the later one would replace
        # the earlier; readers go through them in alphabetical order.
        suffix = f".{purge_step or 0:016}"
        self._writer = EventsWriter(str(directory / "events"), suffix)
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._write(step=purge_step, file_version="brain.Event:2")
            self._write(step=purge_step, session_log=start)

    def write(self, row: Row) -> None:
        for name, value in row.items():
            value = scalar(value)
            if name != "env_steps" and value is not None:
                summary = self._summary_of(name, value)
                self._write(step=row["env_steps"], summary=summary)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write(self, **content: Any) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), **content))


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl, none if there is no file.

    A line that a crash cut off is no row; others that are none are left out and told.

    Raises:
      FileError: there is something else of that name, or it cannot be read.
    """
    if not path.exists():
        return []
    rows: list[Row] = []
    for number, line in enumerate(read_bytes(path).split(b"\n")[:-1], start=1):
        try:
            rows.append(_row(line))
        except ValueError as error:
            warnings.warn(f"{path}, line {number}: not a row ({error})", stacklevel=2)
    return rows


def _row(line: bytes) -> Row:
    row = parse_json(line.decode())
    if not isinstance(row, dict):
        raise ValueError(f"it must be an object, got {shortened(row)}")
    for name, kinds in _NEEDED.items():
        # A bool is an int for Python.
        if type(row.get(name)) not in kinds:
            found = shortened(row[name]) if name in row else "nothing"
            raise ValueError(f"{name} must be a number, got {found}")
    if row.get("seconds", 0) is None:
        raise ValueError("seconds must be a number, got null")
    for name, value in row.items():
        if not all(x is None or type(x) in (int, float) for x in _listed(value)):
            raise ValueError(f"{name} must be numbers, got {shortened(value)}")
    return row


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _mean(value: Any) -> Value:
    if isinstance(value, Mean):
        totals = np.sum(value.total, axis=0, dtype=np.float64)
        counts = np.sum(value.count, axis=0, dtype=np.float64)
        unknown = np.full_like(totals, np.nan)
        mean = np.divide(totals, counts, out=unknown, where=counts > 0)
    else:
        mean = np.mean(value, axis=0, dtype=np.float64)
    return _finite(mean.tolist())


def _numbers(value: Any) -> np.ndarray | None:
    """One, or one for each member; None if it is something else."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of several lengths
        return None
    good = array.ndim < 2 and _is_number(array.dtype)
    return array.astype(np.float64) if good else None


def _is_number(kind: Any) -> bool:
    """Whether float64 can hold what is of this dtype, or type."""
    try:
        return bool(jax.numpy.can_cast(kind, np.float64, "same_kind"))
    except TypeError:  # it is no dtype
        return False


def _finite(value: Any) -> Value:
    """The number, or numbers; None in place of those that are not finite."""
    if isinstance(value, list):
        return [scalar(_finite(x)) for x in value]
    return value if math.isfinite(value) else None


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
