"""A record that keeps the unrolls themselves, for simulators that nobody can repeat.

Beside the schedule lies a folder with a file for each update, written before the
update's line: where there is a line, there is a whole file. Files hold plain arrays and
are never run. What is learned from them is what was learned, bit for bit, without a
simulator and without acting.
"""

import io
import os
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_par.bridge.unrolled import Episodes, Unrolled
from jaxrl_par.loops.records import Entry, RecordError
from jaxrl_par.types import Mean, Metrics

_NAME = "{:09d}.npz"


def folder_of(schedule: Path) -> Path:
    """Where the unrolls of that record are."""
    return schedule.with_suffix(".unrolls")


class Keeper:
    """Writes the unrolls of each update.

    Where that fails, it is told, and nothing more is written: the run goes on.
    """

    def __init__(self, schedule: Path, first_update: int):
        """Continues a folder; files of later updates, after a crash, are removed."""
        self._folder: Path | None = folder_of(schedule)
        self._next = first_update
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in self._folder.glob("*.npz*"):
                number = path.name.split(".")[0]
                if number.isdecimal() and int(number) >= first_update:
                    path.unlink()
        except OSError as error:
            self._give_up(error)

    def write(self, unrolls: Sequence[Unrolled]) -> None:
        """Those that the next update learned from."""
        if self._folder is None:
            return
        path = self._folder / _NAME.format(self._next)
        self._next += 1
        arrays = {name: x for item in unrolls for name, x in _arrays(item).items()}
        begun = path.with_suffix(".npz.begun")
        try:
            with begun.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            os.replace(begun, path)
        except OSError as error:
            with suppress(OSError):
                begun.unlink(missing_ok=True)
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        warnings.warn(
            f"{self._folder} cannot be written: {error.strerror}. The run goes on, and"
            " from here on its unrolls are not kept",
            stacklevel=3,
        )
        self._folder = None


class Known(NamedTuple):
    """What of an unroll is not in its file."""

    tree: Any
    """The structure of a trajectory, a `PyTreeDef`."""
    shapes: Sequence[tuple[tuple[int, ...], np.dtype]]
    """Of its leaves."""


class KeptUnrolls:
    """Reads them."""

    def __init__(self, schedule: Path):
        """
        Raises:
          RecordError: no unrolls were kept with that record.
        """
        self._folder = folder_of(schedule)
        if not self._folder.is_dir():
            raise RecordError(
                f"there are no unrolls in {self._folder}: the run was not recorded with"
                " keep_unrolls"
            )

    def num_envs(self, entry: Entry) -> int:
        """Environments of an actor, from an unroll of the first update."""
        found = self._read(0).get(_prefix(entry) + "num_envs")
        if found is None:
            told = f"has no unroll {entry.unroll} of actor {entry.actor}"
            raise self._error(0, told)
        return int(found)

    def unrolls(
        self, update: int, entries: Sequence[Entry], known: Known
    ) -> list[Unrolled]:
        """
        Raises:
          RecordError: the file is missing or damaged, or of other unrolls.
        """
        arrays = self._read(update)
        return [self._unroll(update, entry, arrays, known) for entry in entries]

    def _unroll(
        self, update: int, entry: Entry, arrays: dict[str, np.ndarray], known: Known
    ) -> Unrolled:
        prefix = _prefix(entry)
        own = {n[len(prefix) :]: x for n, x in arrays.items() if n.startswith(prefix)}
        leaves = [own.get(f"leaf.{i}") for i in range(len(known.shapes))]
        found = [None if x is None else (x.shape, x.dtype) for x in leaves]
        if found != list(known.shapes) or "episodes" not in own:
            told = f"has no unroll {entry.unroll} of actor {entry.actor}"
            raise self._error(update, f"{told}, or of another learner")
        trajectory = known.tree.unflatten(leaves)
        return_, length, count = own["episodes"].tolist()
        info: Metrics = {
            name.removeprefix("info."): Mean(*x)
            for name, x in own.items()
            if name.startswith("info.")
        }
        number = entry.actor, entry.unroll, entry.generation, entry.version
        episodes = Episodes(return_, length, int(count))
        nothing: Any = ()
        return Unrolled(*number, trajectory, episodes, info, nothing)

    def _read(self, update: int) -> dict[str, np.ndarray]:
        path = self._folder / _NAME.format(update)
        try:
            data = io.BytesIO(path.read_bytes())
            with np.load(data, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except OSError as error:
            raise RecordError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise RecordError(f"{path} is damaged: {error}") from error

    def _error(self, update: int, told: str) -> RecordError:
        return RecordError(f"{self._folder / _NAME.format(update)} {told}")


def _prefix(item: Entry | Unrolled) -> str:
    return f"{item.actor}.{item.unroll}.{item.generation}."


def _arrays(item: Unrolled) -> dict[str, Any]:
    """All that is learned from and reported of an unroll, by name."""
    leaves = jax.tree.leaves(item.trajectory)
    found = {f"leaf.{i}": np.asarray(x) for i, x in enumerate(leaves)}
    found["num_envs"] = np.array(item.trajectory.num_lanes, np.int32)
    found["episodes"] = np.array(item.episodes, np.float64)
    found |= {f"info.{name}": np.array(x, "f4") for name, x in item.info.items()}
    prefix = _prefix(item)
    return {prefix + name: x for name, x in found.items()}
