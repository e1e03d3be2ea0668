"""What a checkpoint says of its run: config, versions, and each leaf with its SHA-256.

Leaves go by their path in the tree. Random keys are there as their data.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxrl_par.loops import Run
from jaxrl_par.training.comparison import differences, listed, named
from jaxrl_par.training.failures import CheckpointError, DamagedError
from jaxrl_par.training.files import shortened
from jaxrl_par.training.words import option
from jaxrl_par.types import Unsaved

_FORMAT = 2
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")

Leaves = dict[str, Array]
"""Arrays by their path in the tree. Random keys are there as their data."""
Values = Mapping[str, np.ndarray]
"""The same, fetched from the devices."""
Kinds = dict[str, tuple[str, list[int]]]
"""dtype and shape of each leaf, by its path."""


def manifest(
    run: Run, values: Values, config: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
    """What is saved beside the leaves' values, with a sum over itself."""
    content = {
        "format": _FORMAT,
        "versions": versions(),
        "config": dict(config),
        "leaves": describe(kinds(run), values),
        **about,
    }
    return content | {"sha256": digest(content)}


def checked(manifest: Any) -> dict[str, Any]:
    """The content of a manifest that is as it was saved.

    Raises:
      DamagedError: it is not.
    """
    if not isinstance(manifest, dict):
        found = shortened(manifest)
        raise DamagedError(f"the manifest must be an object, got {found}")
    content = {n: x for n, x in manifest.items() if n != "sha256"}
    if manifest.get("sha256") != digest(content):
        raise DamagedError("the manifest is not what was saved: its SHA-256 differs")
    return content


def check(
    content: dict[str, Any], wanted: Kinds, config: Mapping[str, Any], path: Path
) -> None:
    """Refuses a manifest of another config, or of a run with other leaves.

    Raises:
      CheckpointError: it is of another config, or of another version's layout.
      DamagedError: its leaves are not those of this program.
    """
    if content["format"] != _FORMAT:
        raise CheckpointError(
            f"{path} has layout {content['format']} of checkpoints, and this version of"
            f" jaxrl_par reads {_FORMAT} alone. Finish the run with the version that"
            f" began it, or start again under another {option('name')}"
        )
    if different := differences(content["config"], config):
        raise CheckpointError(
            f"{path.parent} is of another config:{listed(different)}\n"
            "Continue with the settings it has, or start under another"
            f" {option('name')}"
        )
    saved = {n: (x["dtype"], x["shape"]) for n, x in content["leaves"].items()}
    if different := differences(saved, wanted):
        name, (old, new) = next(iter(different.items()))
        changed = differences(content["versions"], versions())
        raise DamagedError(
            f"{len(different)} leaves are not those of this program, such as {name}:"
            f" {old} there, {new} now"
            + (f". It was written by other versions:{listed(changed)}" * bool(changed))
        )


def check_sums(wanted: Kinds, values: Values, content: Mapping[str, Any]) -> None:
    """Accepts values of leaves that are those that the manifest was written for.

    Raises:
      DamagedError: a leaf is another one.
    """
    for name, leaf in describe(wanted, values).items():
        if leaf != content["leaves"][name]:
            raise DamagedError(
                f"leaf {name} is not what was saved: its SHA-256 differs"
            )


def leaves_of(run: Run) -> Leaves:
    return {
        name: jax.random.key_data(x) if is_key(x) else x
        for name, x in saved_leaves(run).items()
    }


def saved_leaves(run: Run) -> dict[str, Any]:
    """Leaves by their path, but for those that are `Unsaved`."""
    kept = jax.tree.map(lambda x: None if _unsaved(x) else x, run, is_leaf=_unsaved)
    return named(kept)


def leaves_out(run: Run) -> bool:
    """Whether a part of the run is not saved."""
    return any(map(_unsaved, jax.tree.leaves(run, is_leaf=_unsaved)))


def _unsaved(part: Any) -> bool:
    return isinstance(part, Unsaved)


def with_leaves(like: Run, leaves: Leaves) -> Run:
    """The run as `like`, with other leaves, but for those that are `Unsaved`."""

    def leaf(x: Array, data: Array) -> Array:
        if not is_key(x):
            return data
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))

    restored = [
        leaf(x, leaves[name]) if name in leaves else x
        for name, x in named(like).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), restored)


def is_key(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def kinds(run: Run) -> Kinds:
    # A key of ours, as on CPU, has the data and the bits of JAX's own on accelerators.
    return {
        name: (str(x.dtype).replace("key<fryu>", "key<fry>"), list(x.shape))
        for name, x in saved_leaves(run).items()
    }


def versions() -> dict[str, str]:
    """Versions of the libraries that decide which bits come next."""
    return {name: version(name) for name in _LIBRARIES}


def describe(wanted: Kinds, values: Values) -> dict[str, dict[str, Any]]:
    """dtype, shape and SHA-256 of each leaf."""
    return {
        name: {
            "dtype": dtype,
            "shape": shape,
            "sha256": hashlib.sha256(_bytes(values[name])).hexdigest(),
        }
        for name, (dtype, shape) in wanted.items()
    }


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _bytes(x: np.ndarray) -> memoryview:
    # bfloat16 has no buffer that hashlib could read.
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8).data
