"""Files of an actor's folder: what they say, and whether they are whole."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import ActorError

FORMAT = 2
"""Version of the folders that this package writes and reads."""
CONFIG, ARRAYS = "config.json", "actor.npz"


def read_config(folder: str | Path) -> dict[str, Any]:
    """What `config.json` says, whole and of this format.

    Raises:
      ActorError: there is none, or it is damaged or of another format.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise ActorError(
            f"{folder} is no exported actor, or not a whole one: no {path}"
        )
    return parsed_config(path)


def parsed_config(path: Path) -> dict[str, Any]:
    """As `read_config`, of a file. Raises ActorError."""
    try:
        config = json.loads(path.read_bytes())
        found = config["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ActorError(f"{path} is damaged: {error!r}") from error
    if found != FORMAT:
        raise ActorError(
            f"{path} has format {found!r}, and this program reads format {FORMAT}: use"
            " the numpy_actor or jaxrl_par that it came with"
        )
    if config.get("sha256") != config_hash(config):
        raise ActorError(f"{path} is damaged: its SHA-256 differs")
    return config


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of all that a config says beside it."""
    content = {name: x for name, x in config.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_file(folder: str | Path, config: Mapping[str, Any], name: str) -> bytes:
    """A file of the folder, as it was written.

    Raises:
      ActorError: it is missing or damaged.
    """
    path = Path(folder) / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ActorError(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != config["files"].get(name):
        raise ActorError(f"{path} is damaged: its SHA-256 is not that of {CONFIG}")
    return data


def read_arrays(folder: str | Path, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of the actor by name. Pickled objects are refused, not read.

    Raises:
      ActorError: the file is missing or damaged, or holds something else.
    """
    data = read_file(folder, config, ARRAYS)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    # numpy, zipfile and zlib each have errors of their own.
    except Exception as error:
        path = Path(folder) / ARRAYS
        raise ActorError(f"{path} does not hold plain arrays: {error}") from error
