"""Configs as JSON, states by the names of their leaves, and where two differ."""

import json
from collections.abc import Mapping
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
    before, after = _leaves(old), _leaves(new)
    both = {
        name: (before.get(name, "absent"), after.get(name, "absent"))
        for name in before | after
    }
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def listed(different: Mapping[str, tuple[Any, Any]]) -> str:
    """`differences` as lines of an error."""
    return "".join(
        f"\n  {name}: {old!r} there, {new!r} now"
        for name, (old, new) in different.items()
    )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves
