"""What the folder of a run tells of it, finished or not, whichever version wrote it."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxrl_par.errors import nearest
from jaxrl_par.training.directory import RunDirectory
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import FileError, read_object
from jaxrl_par.training.provenance import KEY
from jaxrl_par.training.rows import Row, read_rows

_KEPT = {"runs_dir", "log_interval"}
"""Fields that only the part of a config has which says how a run is kept."""
_LARGEST = 1e300


class Reading(NamedTuple):
    """One run."""

    path: Path
    config: dict[str, Any]
    """Without the seed, and how the run is kept: equal for seeds of one experiment."""
    seed: Any
    steps: Float[np.ndarray, " R"]
    """Environment steps of each member at the R rows that have the metric."""
    values: Float[np.ndarray, "P R"]
    """The metric of P members, each of which has one in some row; else NaN."""
    env_steps: int
    """Those of all members."""
    seconds: float
    evaluation: dict[str, float]
    """Results at the end, none for a run that is not finished."""
    state: str | None
    """The hash of the final state, None for a run that is not finished."""
    notes: tuple[str, ...]
    """What looks wrong, in a sentence each."""
    members: str = ""
    """Which those of a larger population are, by their hyperparameters."""


def read(path: Path, metric: str) -> list[Reading]:
    """The run in a folder, with one of its metrics: several of a population whose
    members differ in more than their seeds.

    Raises:
      TrainingError: it is no folder of a run, or has no row with the metric.
    """
    directory, notes = RunDirectory(path), []
    config = _read_config(directory)
    rows = _read_rows(directory, notes)
    steps, values = _curve(path, rows, metric, notes)
    summary = _read_summary(directory, notes)
    end = rows[-1]
    whole = Reading(
        path,
        _of_the_experiment(config),
        config.get("seed"),
        steps / len(values),
        values,
        int(end["env_steps"]),
        _number(end.get("seconds")),
        {n: x for n, x in _part(summary, "evaluation").items() if _is_number(x)},
        summary.get("state_sha256"),
        tuple(notes),
    )
    parts = _apart(whole, _read_members(directory, len(values)))
    return [
        one._replace(values=known)
        for one in parts
        if len(known := one.values[np.isfinite(one.values).any(axis=1)])
    ]


def _read_members(directory: RunDirectory, count: int) -> list[dict[str, Any]]:
    """What members differ in, but for their seeds; empty if nothing is known."""
    if not directory.members.exists():
        return []
    values = read_object(directory.members)
    values.pop("seed", None)
    for name, x in values.items():
        if not isinstance(x, list) or len(x) != count or not all(map(_is_number, x)):
            raise TrainingError(
                f"{directory.members}: {name} must be a list of {count} numbers"
            )
    # As they were asked for: float32 has 7 digits.
    rounded = {n: [float(f"{number:.7g}") for number in x] for n, x in values.items()}
    differ = {n: x for n, x in rounded.items() if len(set(x)) > 1}
    return [{n: x[i] for n, x in differ.items()} for i in range(count)]


def _apart(whole: Reading, members: list[dict[str, Any]]) -> list[Reading]:
    """The run, or what it has of each kind of members."""
    kinds: dict[str, list[int]] = {}
    for index, values in enumerate(members):
        told = ", ".join(f"{n} = {x:.4g}" for n, x in values.items())
        kinds.setdefault(told, []).append(index)
    if len(kinds) < 2:
        return [whole]
    return [
        whole._replace(
            config=whole.config | {"members": members[own[0]]},
            values=whole.values[own],
            env_steps=whole.env_steps * len(own) // len(members),
            # The results are of all members together.
            evaluation={},
            state=whole.state and f"{whole.state}, {told}",
            notes=whole.notes if own[0] == 0 else (),
            members=told,
        )
        for told, own in kinds.items()
    ]


def _read_config(directory: RunDirectory) -> dict[str, Any]:
    path = directory.path
    if not path.is_dir():
        raise TrainingError(f"{path} is no folder")
    if not directory.config.exists():
        raise TrainingError(f"{path} is no folder of a run: it has no config.json")
    return read_object(directory.config)


def _read_summary(directory: RunDirectory, notes: list[str]) -> dict[str, Any]:
    """Empty without one that can be read."""
    if not directory.summary.exists():
        notes.append(f"{directory.path} is not finished")
        return {}
    try:
        return read_object(directory.summary)
    except FileError as error:
        notes.append(f"{error}; its results are left out")
        return {}


def noted_rows(path: Path, notes: list[str]) -> list[Row]:
    """Rows with a number of environment steps; what is wrong with others is noted.

    Raises:
      FileError: the file cannot be read.
    """
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        rows = read_rows(path)
    notes += [str(warning.message) for warning in warned]
    return [row for row in rows if _is_number(row.get("env_steps"))]


def _read_rows(directory: RunDirectory, notes: list[str]) -> list[Row]:
    """At least one."""
    rows = noted_rows(directory.metrics, notes)
    if not rows:
        raise TrainingError(f"{directory.path} has no metrics yet")
    return rows


def _curve(
    path: Path, rows: list[Row], metric: str, notes: list[str]
) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, "P R"]]:
    """Environment steps of all members, in order, and the metric of each member."""
    found = [(row["env_steps"], _members(row[metric])) for row in rows if metric in row]
    found = [(steps, x) for steps, x in found if np.isfinite(x).any()]
    if not found:
        known = {name for row in rows for name, x in row.items() if _is_metric(x)}
        meant = nearest(metric, known - {metric})
        told = "has no finite" if any(metric in row for row in rows) else "has no"
        raise TrainingError(
            f"{path} {told} {metric!r}{meant or '.'} It has: {', '.join(sorted(known))}"
        )
    num_members = len(found[-1][1])
    kept = [(steps, x) for steps, x in found if len(x) == num_members]
    if len(kept) < len(found):
        notes.append(
            f"{path}: {len(found) - len(kept)} rows have another number of members than"
            " the last, and are left out"
        )
    kept.sort(key=lambda row: row[0])
    values = np.array([x for _, x in kept], np.float64).T
    if missing := int((~np.isfinite(values)).all(axis=1).sum()):
        notes.append(f"{path}: {missing} of {num_members} members have no {metric!r}")
    return np.array([steps for steps, _ in kept], np.float64), values


def _members(value: Any) -> list[float]:
    """A number for each member: NaN where there is none."""
    return [_number(x) for x in (value if isinstance(value, list) else [value])]


def _of_the_experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {n for n, x in config.items() if isinstance(x, dict) and x.keys() >= _KEPT}
    settings = {n: x for n, x in config.items() if n not in {"seed", KEY, *kept}}
    experiment = _part(config, KEY).get("experiment")
    return settings | ({"experiment": experiment} if experiment else {})


def _part(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = content.get(name)
    return part if isinstance(part, dict) else {}


def _is_metric(value: Any) -> bool:
    return _is_number(value) or isinstance(value, list)


def _is_number(value: Any) -> bool:
    return math.isfinite(_number(value))


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    # Not by `isfinite`: integers of JSON may be larger than any float.
    return float(value) if -_LARGEST < value < _LARGEST else math.nan
