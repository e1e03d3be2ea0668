"""Metrics on the host: means over a chunk of updates, written where they are read."""

import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxrl_par.training.directory import write_text
from jaxrl_par.training.failures import full_disk_is_clear
from jaxrl_par.types import Count, Mean

Value = int | float | None | list[float | None]
"""A list has a number for each member of a population; None is no finite number."""
Row = dict[str, Any]
"""`updates`, `env_steps`, `seconds`, `steps_per_second`, and a `Value` a metric."""


@runtime_checkable
class Sink(Protocol):
    """Somewhere that rows are written to."""

    def write(self, row: Row) -> None: ...

    def flush(self) -> None:
        """Writes all rows to disk: after this a crash loses none."""

    def close(self) -> None: ...


def summarize(
    metrics: Mapping[str, Float[Array | np.ndarray, "..."] | Mean],
) -> dict[str, Value]:
    """Means over the updates of a chunk, the leading axis; None where not finite.

    A `Mean` is the sum of its totals over the sum of its counts, so that every episode
    weighs the same, and None where nothing was counted.
    """
    return {name: _mean(value) for name, value in jax.device_get(metrics).items()}


def total(count: Count) -> int:
    """The counter, summed over the members of a population."""
    millions, units = (int(np.sum(x, dtype=np.int64)) for x in jax.device_get(count))
    return millions * 10**6 + units


def scalar(value: Value) -> int | float | None:
    """The value, or the mean over the members that have one."""
    if not isinstance(value, list):
        return value
    known = [x for x in value if x is not None]
    return sum(known) / len(known) if known else None


class JsonLines:
    """`metrics.jsonl`, a row for each line, on disk as soon as it is written."""

    def __init__(self, path: Path, updates: int = 0):
        """Continues the file after the row of `updates`; later rows are dropped."""
        self.path = path
        self.rows = [row for row in read_rows(path) if row["updates"] <= updates]
        write_text(path, "".join(_line(row) for row in self.rows))
        self._file = path.open("a")

    def write(self, row: Row) -> None:
        self.rows.append(row)
        line = _line(row)
        with full_disk_is_clear(self.path, len(line)):
            self._file.write(line)
            self._file.flush()

    def flush(self) -> None:
        with full_disk_is_clear(self.path, 0):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Event files, against environment steps; a population is there as its mean."""

    def __init__(self, directory: Path, purge_step: int | None = None):
        from tensorboardX import SummaryWriter

        # Files of the same second have the same name, and the later one would replace
        # the earlier; readers go through them in alphabetical order.
        suffix = f".{purge_step or 0:016}"
        self._writer = SummaryWriter(
            str(directory), purge_step=purge_step, filename_suffix=suffix
        )

    def write(self, row: Row) -> None:
        for name, value in row.items():
            value = scalar(value)
            if name != "env_steps" and value is not None:
                self._writer.add_scalar(name, value, row["env_steps"])

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of W&B; `TrainingConfig.problems` says what to install without it."""

    def __init__(self, directory: Path, config: dict[str, Any], *, resume: bool):
        import wandb  # pyright: ignore[reportMissingImports]

        self._run = wandb.init(
            project="jaxrl_par",
            id=directory.name,
            dir=str(directory),
            config=config,
            resume="allow" if resume else "never",
        )

    def write(self, row: Row) -> None:
        self._run.log({n: scalar(x) for n, x in row.items()}, step=row["updates"])

    def flush(self) -> None:
        """W&B sends from a process of its own."""

    def close(self) -> None:
        self._run.finish()


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl, none if there is no file.

    A line that a crash cut off is no row; others that are none give a warning.
    """
    if not path.exists():
        return []
    rows: list[Row] = []
    for number, line in enumerate(path.read_text().split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
            rows.append(row | {"updates": int(row["updates"])})
        except (ValueError, TypeError, KeyError) as error:
            warnings.warn(f"{path}, line {number}: not a row ({error})", stacklevel=2)
    return rows


def _mean(value: Any) -> Value:
    if isinstance(value, Mean):
        totals = np.sum(value.total, axis=0, dtype=np.float64)
        counts = np.sum(value.count, axis=0, dtype=np.float64)
        unknown = np.full_like(totals, np.nan)
        mean = np.divide(totals, counts, out=unknown, where=counts > 0)
    else:
        mean = np.mean(value, axis=0, dtype=np.float64)
    return _finite(mean.tolist())


def _finite(value: Any) -> Value:
    if isinstance(value, list):
        return [scalar(_finite(x)) for x in value]
    return value if math.isfinite(value) else None


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
