"""Demonstrations as a folder: what somebody did, to be learned from by others.

    manifest.json    rows, lanes, specs, each array with its SHA-256, who acted
    obs_0.npy ..     observations [N+1, B, ...], leaf by leaf, each once
    first.npy, last.npy           [N+1, B]
    action.npy                    [N, B, ...]; action_0.npy and so on, of several parts
    reward.npy, discount.npy      [N, B]

Lanes are streams, as `types` describes them, and have the length that was recorded:
whoever reads them cuts them as it needs. The manifest is written last: without it, a
folder is unfinished. Nothing in it is run when it is read, and nothing is unpickled.
"""

import io
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_par.training.comparison import differences, listed
from jaxrl_par.training.failures import DamagedError, TrainingError
from jaxrl_par.training.files import (
    make_folder,
    read_bytes,
    read_object,
    write_bytes,
    write_json,
    writing,
)
from jaxrl_par.training.manifests import checked, digest
from jaxrl_par.types import (
    Discrete,
    MultiDiscrete,
    Spec,
    Specs,
    TimeStep,
    Trajectory,
)

MANIFEST = "manifest.json"
_FORMAT = 1
_MANIFEST_FIELDS = {"format", "rows", "lanes", "specs", "arrays", "about"}

Kinds = dict[str, tuple[str, list[int]]]
"""dtype and shape of each array, by the name of its file without its end."""


class DemonstrationsError(TrainingError):
    """Demonstrations cannot be written, or not be read as asked."""


def write(
    path: str | Path,
    trajectory: Trajectory,
    specs: tuple[Specs, Specs],
    about: Mapping[str, Any] = {},
) -> None:
    """Writes demonstrations to a folder that is new or empty.

    Args:
      trajectory: [N, B], of which extras and carry are left out.
      specs: of observations and actions.
      about: who acted, and how; what JSON can hold.

    Raises:
      DemonstrationsError: something is in the folder, which is left as it is; or the
        trajectory is not of these specs.
      FileError, DiskFullError: the folder is unfinished, which `read` tells.
    """
    path = Path(path)
    trajectory = jax.device_get(trajectory._replace(extras={}, carry=()))
    rows, lanes = trajectory.reward.shape
    arrays = _arrays(trajectory)
    found = {n: (str(x.dtype), list(x.shape)) for n, x in arrays.items()}
    if different := differences(_kinds(specs, rows, lanes), found):
        raise DemonstrationsError(
            f"demonstrations are not of the specs (specs there, arrays now):"
            f"{listed(different)}"
        )
    refuse_content(path)
    make_folder(path)
    described = {}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        data = file.getvalue()
        write_bytes(path / f"{name}.npy", data)
        described[name] = {
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "sha256": sha256(data).hexdigest(),
        }
    content = {
        "format": _FORMAT,
        "rows": rows,
        "lanes": lanes,
        "specs": describe(specs),
        "arrays": described,
        "about": dict(about),
    }
    write_json(path / MANIFEST, content | {"sha256": digest(content)})


def read(path: str | Path, specs: tuple[Specs, Specs]) -> Trajectory:
    """Demonstrations [N, B], NumPy's arrays without extras and carry.

    Args:
      specs: of the observations and actions that they are to be used with.

    Raises:
      DemonstrationsError: the folder is none of demonstrations, unfinished, damaged, or
        of other specs.
    """
    path = Path(path)
    content = read_manifest(path)
    if different := differences(content["specs"], describe(specs)):
        raise DemonstrationsError(
            f"{path} has demonstrations of other observations or actions:"
            f"{listed(different)}\nRecord them in the same environment, as the agent is"
            " to see it"
        )
    rows, lanes = content["rows"], content["lanes"]
    arrays = {}
    for name, (dtype, shape) in _kinds(specs, rows, lanes).items():
        arrays[name] = _array(path, name, dtype, shape, content["arrays"])
    tree = jax.tree.structure(specs[0], is_leaf=_is_spec)
    obs = tree.unflatten(arrays.pop(f"obs_{i}") for i in range(tree.num_leaves))
    steps = TimeStep(obs, arrays.pop("first"), arrays.pop("last"))
    tree = jax.tree.structure(specs[1], is_leaf=_is_spec)
    action = tree.unflatten(arrays.pop(name) for name in _of_actions(tree.num_leaves))
    return Trajectory(steps, action, **arrays, extras={}, carry=())


def _of_actions(number: int) -> list[str]:
    """Names of the arrays of an action of so many parts."""
    return ["action"] if number == 1 else [f"action_{i}" for i in range(number)]


def read_manifest(path: Path) -> dict[str, Any]:
    """What the folder says of itself, without a look at its arrays.

    Raises:
      DemonstrationsError: the folder is none of demonstrations, unfinished or damaged.
    """
    remedy = "`jaxrl-par record-demonstrations` writes one"
    if not path.is_dir():
        raise DemonstrationsError(f"{path} is no folder of demonstrations: {remedy}")
    if not (path / MANIFEST).exists():
        told = "the folder is empty"
        if next(path.iterdir(), None):
            told = f"it has no {MANIFEST}, which is written last"
        raise DemonstrationsError(f"{path} has no demonstrations: {told}. {remedy}")
    try:
        content = checked(read_object(path / MANIFEST))
    except DamagedError as error:
        raise DemonstrationsError(f"{path / MANIFEST}: {error}") from error
    if content.get("format") != _FORMAT:
        raise DemonstrationsError(
            f"{path} has layout {content.get('format')} of demonstrations, and this"
            f" version of jaxrl_par reads {_FORMAT}: record them again"
        )
    if content.keys() != _MANIFEST_FIELDS:
        raise DemonstrationsError(
            f"{path / MANIFEST} must have {sorted(_MANIFEST_FIELDS)}, got"
            f" {sorted(content)}"
        )
    return content


def refuse_content(path: Path) -> None:
    """Accepts a folder that demonstrations can be written to: new, or empty.

    Raises:
      DemonstrationsError: something is there.
      FileError: it cannot be looked at.
    """
    with writing(path, 0):
        if path.exists() and not path.is_dir():
            raise DemonstrationsError(f"{path} is a file: give a folder")
        if path.is_dir() and next(path.iterdir(), None):
            there = (path / MANIFEST).exists()
            told = "has demonstrations already" if there else "is not empty"
            raise DemonstrationsError(f"{path} {told}: give another folder")


def describe(specs: tuple[Specs, Specs]) -> dict[str, Any]:
    """Both specs as JSON: names, shapes, dtypes and bounds."""
    observations, actions = specs
    named = _named(observations)
    return {
        "observations": {name or "all": x for name, x in named.items()},
        "actions": _named(actions)[""] if _is_spec(actions) else _named(actions),
    }


def _named(specs: Specs) -> dict[str, Any]:
    leaves = jax.tree.leaves_with_path(specs, is_leaf=_is_spec)
    name = partial(jax.tree_util.keystr, simple=True, separator=".")
    return {name(path): _spec(x) for path, x in leaves}


def _spec(spec: Spec) -> dict[str, Any]:
    kind = {"shape": list(spec.shape), "dtype": str(np.dtype(spec.dtype))}
    if isinstance(spec, Discrete):
        start = {"start": spec.start} if spec.start else {}
        return kind | {"num_values": spec.num_values} | start
    if isinstance(spec, MultiDiscrete):
        start = {"start": spec.start.tolist()} if np.any(spec.start) else {}
        return kind | {"nvec": spec.nvec.tolist()} | start
    return kind | {"low": _bounds(spec.low), "high": _bounds(spec.high)}


def _bounds(values: np.ndarray | float) -> Any:
    """A number if all are the same, else a list; infinite ones as text."""
    flat = np.asarray(values).reshape(-1).tolist()
    flat = [x if np.isfinite(x) else str(x) for x in flat]
    return flat[0] if flat and all(x == flat[0] for x in flat) else flat


def _is_spec(x: Any) -> bool:
    return isinstance(x, Spec)


def _arrays(trajectory: Trajectory) -> dict[str, np.ndarray]:
    steps = trajectory.steps
    arrays = {f"obs_{i}": x for i, x in enumerate(jax.tree.leaves(steps.obs))}
    arrays |= {"first": steps.first, "last": steps.last}
    actions = jax.tree.leaves(trajectory.action)
    rows = dict(zip(_of_actions(len(actions)), actions, strict=True))
    rows |= {"reward": trajectory.reward, "discount": trajectory.discount}
    return {n: np.asarray(x) for n, x in (arrays | rows).items()}


def _kinds(specs: tuple[Specs, Specs], rows: int, lanes: int) -> Kinds:
    """What the arrays of so many rows are, if they are of these specs."""
    observations, actions = specs
    steps, row = [rows + 1, lanes], [rows, lanes]
    kinds = {
        f"obs_{i}": (str(np.dtype(x.dtype)), [*steps, *x.shape])
        for i, x in enumerate(jax.tree.leaves(observations, is_leaf=_is_spec))
    }
    kinds |= dict.fromkeys(("first", "last"), ("bool", steps))
    parts = jax.tree.leaves(actions, is_leaf=_is_spec)
    for name, spec in zip(_of_actions(len(parts)), parts, strict=True):
        kinds[name] = (str(np.dtype(spec.dtype)), [*row, *spec.shape])
    return kinds | dict.fromkeys(("reward", "discount"), ("float32", row))


def _array(
    folder: Path, name: str, dtype: str, shape: list[int], described: Mapping[str, Any]
) -> np.ndarray:
    """One of the arrays, if it is what the manifest says."""
    path = folder / f"{name}.npy"
    remedy = "record the demonstrations again, or copy them once more"
    if not path.exists():
        raise DemonstrationsError(f"{path} is missing: {remedy}")
    data = read_bytes(path)
    if sha256(data).hexdigest() != described.get(name, {}).get("sha256"):
        raise DemonstrationsError(
            f"{path} is not what was recorded: its SHA-256 differs; {remedy}"
        )
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DemonstrationsError(f"{path} is no array of NumPy: {error}") from error
    found = (str(array.dtype), list(array.shape))
    if found != (dtype, shape):
        raise DemonstrationsError(
            f"{path} must be {dtype} {shape}, got {found[0]} {found[1]}: {remedy}"
        )
    return array
