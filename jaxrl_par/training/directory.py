"""The folder of a run: `runs/<name>/` with all that is known about it."""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from jaxrl_par.training.comparison import differences, listed, to_json
from jaxrl_par.training.failures import TrainingError, full_disk_is_clear
from jaxrl_par.training.provenance import KEY, provenance
from jaxrl_par.training.settings import CHANGES_RESULTS, TrainingConfig


class RunFolderError(TrainingError):
    """The folder is taken, or there is none to resume."""


class RunDirectory:
    """Where a run keeps its files."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.curve = path / "curve.png"
        self.summary = path / "summary.json"
        self.animation = path / "episode.gif"
        self.parallelism = path / "parallelism.png"
        self.schedule = path / "schedule.jsonl"
        self.checkpoints = path / "checkpoints"
        self.actor = path / "actor"
        self.tensorboard = path / "tensorboard"


def open_directory(args: Any, settings: TrainingConfig, default: str) -> RunDirectory:
    """Makes the folder of a new run, or finds that of the run to resume.

    Args:
      args: the whole config, written to `config.json` with where the run comes from.
      default: name where the settings give none. A new run takes the first free one of
        `default`, `default-2`, ...; `--resume` takes the last.

    Raises:
      RunFolderError: the folder exists without `resume`, or does not with it.
      TrainingError: the run to resume has another config.
    """
    find = _existing if settings.resume else _new
    directory = RunDirectory(find(settings, Path(settings.runs_dir), default))
    if directory.config.exists():
        _check_same(directory, args, settings)
    else:
        write_json(directory.config, to_json(args) | {KEY: provenance(args)})
    return directory


def identity(args: Any, settings: TrainingConfig) -> dict[str, Any]:
    """The part of a config that decides the results, as `to_json` gives it."""
    return _essential(to_json(args), _part(args, settings))


def write_json(path: Path, content: Any) -> None:
    """Writes a file that is whole at any moment.

    Raises:
      DiskFullError: the old file, if there was one, is as it was.
    """
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes any text as `write_json` writes JSON."""
    temporary = path.with_name(f"{path.name}.new")
    with full_disk_is_clear(path, len(text)):
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _new(settings: TrainingConfig, runs: Path, default: str) -> Path:
    path = runs / (settings.name or numbered(default, _last(runs, default) + 1))
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunFolderError(
            f"{path} exists. Continue that run with --resume, or give this one another"
            " --name"
        )
    with full_disk_is_clear(path, 1):
        path.mkdir(parents=True, exist_ok=True)
    return path


def _existing(settings: TrainingConfig, runs: Path, default: str) -> Path:
    path = runs / (settings.name or numbered(default, max(_last(runs, default), 1)))
    if path.is_dir():
        return path
    there = sorted(x.name for x in runs.glob("*") if x.is_dir())
    raise RunFolderError(
        f"no run to resume at {path}. In {runs} there are: {', '.join(there) or 'none'}"
    )


def _last(runs: Path, default: str) -> int:
    """The highest number among the folders named after `default`, 0 without any."""
    pattern = re.compile(re.escape(default) + r"(?:-(\d+))?")
    found = [pattern.fullmatch(path.name) for path in runs.glob("*")]
    return max((int(match[1] or 1) for match in found if match), default=0)


def numbered(default: str, number: int) -> str:
    return default if number == 1 else f"{default}-{number}"


def _check_same(directory: RunDirectory, args: Any, settings: TrainingConfig) -> None:
    try:
        old = json.loads(directory.config.read_text())
    except ValueError as error:
        raise TrainingError(f"{directory.config} is damaged: {error}") from error
    before, now = _essential(old, _part(args, settings)), identity(args, settings)
    if before.keys() != now.keys():
        raise TrainingError(
            f"{directory.config} is of another layout than this script and this version"
            f" of jaxrl_par write:{_named('not there', now.keys() - before.keys())}"
            f"{_named('only there', before.keys() - now.keys())}\n"
            "Finish the run with what began it, or start again under another --name"
        )
    if different := differences(before, now):
        raise TrainingError(
            f"{directory.path} is a run with another config:{listed(different)}\n"
            "Resume it with the settings it has, or start another --name"
        )


def _named(label: str, names: Iterable[str]) -> str:
    """A line with the names, none without any."""
    names = sorted(names)
    return f"\n  {label}: {', '.join(names)}" if names else ""


def _part(args: Any, settings: TrainingConfig) -> str:
    return next(f.name for f in fields(args) if getattr(args, f.name) is settings)


def _essential(config: dict[str, Any], part: str) -> dict[str, Any]:
    kept = {n: x for n, x in config.get(part, {}).items() if n in CHANGES_RESULTS}
    settings = {n: x for n, x in config.items() if n != KEY}
    return settings | {part: kept}
