"""Files of an exported actor, in a folder that may hold those of others.

The config is written last: a folder without one is not whole. It is there from the
start under another name, so that what a write left that did not come to its end is
known as an export's, too.
"""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from jaxrl_par import numpy_actor
from jaxrl_par.numpy_actor import CONFIG, ActorError
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import make_folder, write_json, writing

RUNTIME = numpy_actor.__name__.rpartition(".")[2]
"""The folder of the form for NumPy."""
_CACHE = "__pycache__"
_BEGUN = f"{CONFIG}.begun"


class ExportError(TrainingError):
    """An actor cannot be written or read."""


def save(
    path: Path, files: Mapping[str, bytes], config: Mapping[str, Any], overwrite: bool
) -> None:
    """Writes files by their path in the folder, in place of those of older exports.

    Raises:
      ExportError: the folder has other content, which is left as it is.
      DiskFullError: the folder is no whole actor then.
    """
    config = {**config, "files": {n: sha256(x).hexdigest() for n, x in files.items()}}
    make_folder(path)
    owned, there = _owned(path), _there(path)
    kept = there - owned - (files.keys() | {CONFIG} if overwrite else set())
    if kept and not overwrite:
        raise ExportError(
            f"{path} holds other things than an actor that was exported, such as"
            f" {min(kept)}: it was left as it is. Choose another folder, or say"
            " overwrite=True, which replaces files of the same names"
        )
    # Python leaves it when the form for NumPy is imported from here.
    shutil.rmtree(path / RUNTIME / _CACHE, ignore_errors=True)
    for name in owned - {CONFIG, _BEGUN}:
        with writing(path / name, 0):
            (path / name).unlink(missing_ok=True)
    with suppress(OSError):  # none, or there is something of others in it
        (path / RUNTIME).rmdir()
    write_json(path / _BEGUN, config | {"sha256": numpy_actor.config_hash(config)})
    (path / CONFIG).unlink(missing_ok=True)
    for name, data in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        with writing(path / name, len(data)):
            (path / name).write_bytes(data)
    with writing(path / CONFIG, 0):
        (path / _BEGUN).replace(path / CONFIG)


def _there(path: Path) -> set[str]:
    """What is in the folder, and in that of the form for NumPy, by its path there."""
    found = set()
    for x in path.iterdir():
        ours = x.name == RUNTIME and x.is_dir()
        inner = (y for y in x.iterdir() if y.name != _CACHE) if ours else [x]
        found |= {y.relative_to(path).as_posix() for y in inner}
    return found


def _owned(path: Path) -> set[str]:
    """Those of the folder that exports wrote, and nobody changed since."""
    # Nobody else names a file so.
    owned, there = {f"{_BEGUN}.new"}, _there(path)
    files = {x for x in there if (path / x).is_file()}
    for name in (CONFIG, _BEGUN):
        try:
            config = numpy_actor.parsed_config(path / name)
        except ActorError:
            continue  # none, or somebody else's
        owned.add(name)
        for file in config["files"].keys() & files:
            digest = sha256((path / file).read_bytes()).hexdigest()
            # Of what was begun, a file may be cut off.
            if name == _BEGUN or digest == config["files"][file]:
                owned.add(file)
    return owned & files
