"""The folder of a run: `runs/<name>/` with all that is known about it."""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from jaxrl_par.errors import RefusedError, refuse_any
from jaxrl_par.training.comparison import differences, leaves, listed, to_json
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import (
    LOCK,
    UNFINISHED,
    FileError,
    Hold,
    check_free,
    line_of,
    make_folder,
    read_bytes,
    read_object,
    shortened,
    write_bytes,
    write_json,
    writing,
)
from jaxrl_par.training.provenance import KEY, provenance
from jaxrl_par.training.settings import CHANGES_RESULTS, TrainingConfig, name_problems
from jaxrl_par.training.words import option, switch

_PART = "training"
"""Name of the settings in `config.json`, where the whole config has none for them."""


class RunFolderError(TrainingError):
    """The folder is taken, or there is none to resume."""


class RunDirectory(AbstractContextManager):
    """Where a run keeps its files. As a context, it keeps other runs out."""

    def __init__(self, path: Path, *, new: bool = False):
        # Made once: a simulator may change the process's working directory.
        self.path = path = path.absolute()
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.curve = path / "curve.png"
        self.summary = path / "summary.json"
        self.animation = path / "episode.gif"
        self.parallelism = path / "parallelism.png"
        self.report = path / "report.html"
        self.schedule = path / "schedule.jsonl"
        self.members = path / "members.json"
        self.checkpoints = path / "checkpoints"
        self.actor = path / "actor"
        self.tensorboard = path / "tensorboard"
        self.wandb = path / "wandb.json"
        self._new = new

    def __enter__(self) -> "RunDirectory":
        """Raises HeldError if another run writes here; it says which."""
        self._hold = Hold(self.path)
        self._content = read_bytes(self.config)
        return self

    def come_back(self) -> None:
        """Makes the folder anew, with the config, if it was moved or removed.

        Raises:
          FileError, DiskFullError: it cannot be made.
        """
        if make_folder(self.path):
            self._hold.release()
            self._hold = Hold(self.path)
            write_bytes(self.config, self._content)

    def __exit__(self, *exception: object) -> None:
        """Lets others write here. A new folder without a checkpoint is removed, where
        it can be."""
        # What ended the run is told, and not that nothing could be removed any more.
        with suppress(OSError):
            if self._is_unused():
                self._remove()
        self._hold.release()

    def _remove(self) -> None:
        """The lock last: nobody else takes the folder before it is empty."""
        self.config.unlink(missing_ok=True)
        if self.checkpoints.exists():
            for path in self.checkpoints.iterdir():
                path.unlink()
            self.checkpoints.rmdir()
        self._hold.remove()
        self.path.rmdir()

    def _is_unused(self) -> bool:
        """Whether there is nothing but what every run begins with."""
        if not self._new or not self.path.is_dir():
            return False
        begun = {LOCK, self.config.name, self.checkpoints.name}
        there = {x.name for x in self.path.iterdir()}
        saved = self.checkpoints.exists() and any(
            x.is_dir() for x in self.checkpoints.iterdir()
        )
        return there <= begun and not saved


def open_directory(
    args: Any,
    settings: TrainingConfig,
    default: str,
    extends: Iterable[str] = (),
) -> RunDirectory:
    """Makes the folder of a new run, or finds that of the run to resume.

    Args:
      args: the whole config, written to `config.json` with the settings and where the
        run comes from.
      default: name where the settings give none. A new run takes the first free one of
        `default`, `default-2`, ...; `--resume` takes the last.
      extends: fields of `args` that a resumed run may have otherwise.

    Raises:
      RunFolderError: the folder exists without `resume`, or does not with it.
      HeldError: another run writes to it.
      TrainingError: the run to resume has another config, the config is not for JSON,
        or the folder cannot be written to.
    """
    refuse_any(name_problems(default, "default_name"))
    content = recorded(args, settings)
    with writing(Path(settings.runs_dir), 1):  # also where looking is not allowed
        runs = Path(settings.runs_dir).absolute()
        path = _to_resume(settings, runs, default)
        new = path is None
        if path is None:
            path = _made(settings, runs, default)
        with Hold(path):
            directory = RunDirectory(path, new=new)
            if new:
                _check_empty(path, held=True)
            else:
                _check_run(directory)
            if directory.config.exists():
                _check_same(directory, content, _part(args, settings), extends)
            else:
                write_json(directory.config, content | {KEY: provenance(args)})
    return directory


def identity(args: Any, settings: TrainingConfig) -> dict[str, Any]:
    """The part of a config that decides the results, as `to_json` gives it."""
    return _essential(recorded(args, settings), _part(args, settings))


def recorded(args: Any, settings: TrainingConfig) -> dict[str, Any]:
    """What `config.json` is to hold: the settings are those that the run has."""
    own = to_json({} if args is None else args)
    content = own | {_part(args, settings): asdict(settings)}
    for name, value in leaves(content):
        try:
            json.dumps(value, allow_nan=False)
        except ValueError as error:
            raise RefusedError(f"{name} must be finite, got {value}") from error
    return content


def _part(args: Any, settings: TrainingConfig) -> str:
    """Name of the settings within the whole config."""
    if is_dataclass(args):
        items = {field.name: getattr(args, field.name) for field in fields(args)}
    else:
        items = args if isinstance(args, Mapping) else {}
    found = [name for name, x in items.items() if isinstance(x, TrainingConfig)]
    return next((x for x in found if items[x] is settings), (*found, _PART)[0])


def _to_resume(settings: TrainingConfig, runs: Path, default: str) -> Path | None:
    """The run that the settings say to continue, None if they ask for a new one."""
    if not (settings.resume or settings.auto_resume):
        return None
    path = runs / (settings.name or numbered(default, max(_last(runs, default), 1)))
    if path.is_dir():
        return path
    if settings.auto_resume:
        return None
    there = sorted(x.name for x in runs.glob("*") if x.is_dir())
    raise RunFolderError(
        f"no run to resume at {path}. In {runs} there are: {', '.join(there) or 'none'}"
    )


def _made(settings: TrainingConfig, runs: Path, default: str) -> Path:
    """The folder of a new run, with nothing in it."""
    if settings.name is None:
        while True:
            path = runs / numbered(default, _last(runs, default) + 1)
            # Somebody may have made it meanwhile: then the next number is free.
            if make_folder(path):
                return path
    path = runs / settings.name
    if not make_folder(path):
        _check_empty(path)
    return path


def _check_empty(path: Path, *, held: bool = False) -> None:
    if all(x.name == LOCK for x in path.iterdir()):
        return
    if not held:
        check_free(path)
    raise RunFolderError(
        f"{path} exists. Continue that run with {switch('resume')}, or give this one"
        f" another {option('name')}"
    )


def _check_run(directory: RunDirectory) -> None:
    known = {directory.config.name, directory.checkpoints.name}
    found = directory.path.iterdir()
    there = {x.name.removesuffix(UNFINISHED) for x in found} - {LOCK}
    if there and not there & known:
        raise RunFolderError(
            f"{directory.path} is not the folder of a run: it holds {min(there)}, and"
            f" neither {' nor '.join(sorted(known))}. It was left as it is"
        )


def _last(runs: Path, default: str) -> int:
    """The highest number among the folders named after `default`, 0 without any."""
    pattern = re.compile(re.escape(default) + r"(?:-(\d+))?")
    found = [pattern.fullmatch(path.name) for path in runs.glob("*")]
    return max((int(match[1] or 1) for match in found if match), default=0)


def numbered(default: str, number: int) -> str:
    return default if number == 1 else f"{default}-{number}"


def _check_same(
    directory: RunDirectory, content: dict[str, Any], part: str, extends: Iterable[str]
) -> None:
    old = read_object(directory.config)
    if not isinstance(old.get(part, {}), dict):
        raise FileError(
            f"{directory.config}, line {line_of(directory.config, part)}:"
            f" {part} must be an object, got {shortened(old[part])}"
        )
    before, now = (_essential(x, part) for x in (old, content))
    if before.keys() != now.keys():
        raise TrainingError(
            f"{directory.config} is of another layout than this script and this version"
            f" of jaxrl_par write:{_named('not there', now.keys() - before.keys())}"
            f"{_named('only there', before.keys() - now.keys())}\n"
            "Finish the run with what began it, or start again under another"
            f" {option('name')}"
        )
    extended = {name: content[name] for name in extends if name in content}
    if different := differences(before | extended, now):
        raise TrainingError(
            f"{directory.path} is a run with another config:{listed(different)}\n"
            f"Resume it with the settings it has, or start another {option('name')}"
        )
    if differences(old | extended, old):
        write_json(directory.config, old | extended)


def _named(label: str, names: Iterable[str]) -> str:
    """A line with the names, none without any."""
    names = sorted(names)
    return f"\n  {label}: {', '.join(names)}" if names else ""


def _essential(config: dict[str, Any], part: str) -> dict[str, Any]:
    kept = {n: x for n, x in config.get(part, {}).items() if n in CHANGES_RESULTS}
    return {n: x for n, x in config.items() if n != KEY} | {part: kept}
