"""Trees of dicts, tuples, NamedTuples and lists, without JAX.

Leaves come in the order of `jax.tree`: those of a dict by its sorted keys. What is none
of these containers is a leaf; None has no leaves.
"""

from collections.abc import Callable
from typing import Any


def leaves(tree: Any) -> list[Any]:
    """All leaves, in order."""
    parts = _parts(tree)
    return [tree] if parts is None else [x for _, part in parts for x in leaves(part)]


def paths(tree: Any, path: str = "") -> list[str]:
    """Where each leaf is, as Python writes it: `['a'][0].b`."""
    parts = _parts(tree)
    if parts is None:
        return [path]
    return [inner for key, part in parts for inner in paths(part, path + key)]


def map_leaves(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """`function` of each leaf and of those in its place in the others.

    Raises:
      ValueError: another one has another structure.
    """
    parts = _parts(tree)
    if parts is None:
        for x in others:
            if _parts(x) is not None:
                raise ValueError(f"{structure(x)} is no single array")
        return function(tree, *others)
    keys = [key for key, _ in parts]
    rest = [_parts(x) or [] for x in others]
    for x, other in zip(others, rest, strict=True):
        if type(x) is not type(tree) or [key for key, _ in other] != keys:
            raise ValueError(f"{structure(x)} is not {structure(tree)}")
    columns = [[x for _, x in each] for each in (parts, *rest)]
    made = [map_leaves(function, *each) for each in zip(*columns, strict=True)]
    if isinstance(tree, dict):
        return dict(zip(sorted(tree), made, strict=True))
    if tree is None:
        return None
    return type(tree)(*made) if hasattr(tree, "_fields") else type(tree)(made)


def structure(tree: Any) -> str:
    """In a few words, with * for each leaf."""
    parts = _parts(tree)
    if parts is None:
        return "*"
    inner = ", ".join(f"{key}: {structure(x)}" for key, x in parts)
    return f"{type(tree).__name__}({inner})"


def _parts(tree: Any) -> list[tuple[str, Any]] | None:
    """Children, and how each is reached; None of a leaf."""
    if isinstance(tree, dict):
        return [(f"[{key!r}]", tree[key]) for key in sorted(tree)]
    if isinstance(tree, tuple | list):
        names = getattr(tree, "_fields", None)
        if names is not None:
            return [(f".{name}", x) for name, x in zip(names, tree, strict=True)]
        return [(f"[{i}]", x) for i, x in enumerate(tree)]
    return [] if tree is None else None
