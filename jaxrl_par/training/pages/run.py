"""A run as a page: how it ended, its curves, where its time went, and its settings.

What is in the folder is shown; what is damaged or is not there is named. Pictures are
part of the file.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxrl_par.training.comparison import differences, leaves
from jaxrl_par.training.directory import RunDirectory
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import FileError, read_object
from jaxrl_par.training.metrics import unit_of
from jaxrl_par.training.pages.rendering import write_page
from jaxrl_par.training.pages.svg import Curve, chart
from jaxrl_par.training.provenance import KEY
from jaxrl_par.training.readings import noted_rows
from jaxrl_par.training.rows import Row

T = TypeVar("T")
_FIRST = ("episode_return", "steps_per_second", "episode_length")
"""The curves that a reader looks for; others come by name."""
_COUNTS = {"updates", "env_steps", "seconds"}
_LARGEST = 1_200_000
"""Bytes of a picture that is part of the page; a larger one is a link."""


def write_report(folder: str | Path, defaults: Mapping[str, Any] | None = None) -> Path:
    """Writes `report.html` into the folder of a run, and returns its path.

    Args:
      defaults: of its settings, as JSON has them; None if nobody knows them.

    Raises:
      TrainingError: there is no such folder, nothing of a run in it, or no writing.
    """
    directory, notes = RunDirectory(Path(folder)), []
    if not directory.path.is_dir():
        raise TrainingError(f"{directory.path} is no folder")
    if not directory.config.exists() and not directory.metrics.exists():
        raise TrainingError(
            f"{directory.path} has neither config.json nor metrics.jsonl"
        )
    config = _known(notes, lambda: read_object(directory.config)) or {}
    summary = _known(notes, lambda: read_object(directory.summary)) or {}
    rows = _known(notes, lambda: noted_rows(directory.metrics, notes)) or []
    origin, settings = _part(config, KEY), _without(config, KEY)
    changed = {} if defaults is None else differences(defaults, settings)
    threads = directory.parallelism.with_suffix(".txt")
    write_page(
        directory.report,
        "run.html",
        title=directory.path.name,
        notes=notes,
        ends=list(_facts(summary)),
        charts=[
            (name.replace("_", " "), unit_of(name) or "", chart(name, [curve]))
            for name, curve in curves(rows).items()
        ],
        episode=_embedded(directory.animation, "gif"),
        episode_file=_named(directory.animation),
        threads=_known(notes, threads.read_text) if threads.exists() else None,
        parallelism=_embedded(directory.parallelism, "png"),
        changed=[(n, _told(x), _told(y)) for n, (x, y) in changed.items()],
        settings=list(_facts(settings)),
        origin=list(_facts(origin)),
        files=list(_files(directory.path)),
    )
    return directory.report


def curves(rows: list[Row]) -> dict[str, Curve]:
    """By metric, those that have a number in some row; of a population, its mean and
    range."""
    names = {name for row in rows for name in row} - _COUNTS
    first = [name for name in _FIRST if name in names]
    found = {}
    for name in (*first, *sorted(names - set(first))):
        known = [row for row in rows if _numbers(row.get(name)).size]
        steps = np.array([_number(row.get("env_steps")) for row in known], np.float64)
        values = [_numbers(row[name]) for row in known]
        if not values:
            continue
        mean, low, high = (
            np.array([of(x) for x in values]) for of in (np.mean, np.min, np.max)
        )
        several = any(x.size > 1 for x in values)
        bounds = (low, high) if several else (None, None)
        found[name] = Curve(name, steps, mean, *bounds)
    return found


def _known(notes: list[str], read: Callable[[], T]) -> T | None:
    """What could be read; else None, and a note why not."""
    try:
        return read()
    except (OSError, FileError, TrainingError, UnicodeDecodeError) as error:
        notes.append(f"Left out: {error}")
        return None


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}


def _without(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: x for key, x in config.items() if key != name}


def _facts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return ((name.replace("_", " "), _told(x)) for name, x in leaves(values))


def _told(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: Any) -> float:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and abs(value) < 1e300 else np.nan


def _numbers(value: Any) -> np.ndarray:
    values = value if isinstance(value, list) else [value]
    numbers = np.array([_number(x) for x in values], np.float64)
    return numbers[np.isfinite(numbers)]


def _embedded(path: Path, kind: str) -> str | None:
    """The picture as an address that holds it."""
    if not path.exists() or path.stat().st_size > _LARGEST:
        return None
    data = base64.b64encode(path.read_bytes()).decode()
    return f"data:image/{kind};base64,{data}"


def _named(path: Path) -> str | None:
    return path.name if path.exists() else None


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """What lies in the folder, and its checkpoints, as links from the page."""
    checkpoints = sorted((folder / "checkpoints").glob("*"))
    for path in [*sorted(folder.iterdir()), *checkpoints]:
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            yield f"{name}/", ""
        elif path.name not in ("lock", "report.html"):
            yield name, f"{path.stat().st_size / 1000:,.1f} kB"
