"""Configs as JSON, states by the names of their leaves, and where two differ."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import jax
from jaxtyping import PyTree


def to_json(config: Any) -> dict[str, Any]:
    """The config as what JSON can hold: tuples become lists."""
    return json.loads(json.dumps(asdict(config)))


def named(tree: PyTree) -> dict[str, Any]:
    """Leaves by their dotted path in the tree."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """(old, new) of every field, by dotted name, in which two `to_json` differ.

    A field that one of them lacks is "absent" there.
    """
    old, new = dict(_leaves(old)), dict(_leaves(new))
    pairs = ((x, old.get(x, "absent"), new.get(x, "absent")) for x in old | new)
    return {name: (before, after) for name, before, after in pairs if before != after}


def listed(different: Mapping[str, tuple[Any, Any]]) -> str:
    """`differences` as lines of an error."""
    return "".join(
        f"\n  {name}: {old!r} there, {new!r} now"
        for name, (old, new) in different.items()
    )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
