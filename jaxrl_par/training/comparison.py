"""Configs as JSON, states by the names of their leaves, and where two differ."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from jaxrl_par.errors import RefusedError, refuse_any, same_text


def to_json(config: Any) -> dict[str, Any]:
    """The config as what JSON can hold: tuples become lists, paths their text.

    Args:
      config: a dataclass, a mapping, or what argparse gives.

    Raises:
      RefusedError: it is something else, or holds what JSON has no form for.
    """
    plain = _plain(config, "config")
    if not isinstance(plain, dict):
        raise RefusedError(
            "a config is a dataclass, a mapping or a Namespace of argparse, got"
            f" {type(config).__name__}"
        )
    return plain


def named(tree: PyTree) -> dict[str, Any]:
    """Leaves by their dotted path in the tree.

    Raises:
      RefusedError: two have the same, as those of {"a.b": x, "a": {"b": y}}.
    """
    pairs = [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    ]
    refuse_any(same_text([name for name, _ in pairs], "leaves"))
    return dict(pairs)


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """(old, new) of every field, by dotted name, in which two `to_json` differ.

    A field that one of them lacks is "absent" there.
    """
    old, new = dict(leaves(old)), dict(leaves(new))
    pairs = ((x, old.get(x, "absent"), new.get(x, "absent")) for x in old | new)
    return {name: (before, after) for name, before, after in pairs if before != after}


def listed(different: Mapping[str, tuple[Any, Any]]) -> str:
    """`differences` as lines of an error."""
    return "".join(
        f"\n  {name}: {old!r} there, {new!r} now"
        for name, (old, new) in different.items()
    )


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of all that is no mapping."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        refuse_any(same_text(value, f"keys of {name}"))
        return {str(key): _plain(x, f"{name}.{key}") for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x, f"{name}[{i}]") for i, x in enumerate(value)]
    if isinstance(value, Namespace):
        return _plain(vars(value), name)
    if is_dataclass(value) and not isinstance(value, type):
        items = {field.name: getattr(value, field.name) for field in fields(value)}
        return _plain(items, name)
    raise RefusedError(
        f"{name} cannot be written as JSON: it is of type {type(value).__name__}"
    )
