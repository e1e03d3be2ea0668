"""What the memory of each kind keeps, and where it is computed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .arrays import ActorError, Arrays
from .recurrent import GRU, LSTM
from .transformer import Transformer

Carry = tuple[np.ndarray, ...]
"""Memory, leaves [B, ...]: (cell, hidden) of an LSTM, (hidden,) of a GRU, those of all
layers of a GTrXL with two counters, or ()."""
Kept = list[tuple[tuple[int, ...], str]]
"""Shapes and dtypes of leaves, for one environment."""


def kept(network: Mapping[str, Any]) -> Kept:
    """What a network that was described remembers."""
    kind, width = network["memory"], network["memory_width"]
    if kind != "gtrxl":
        return [((width,), "float32")] * {"none": 0, "gru": 1, "lstm": 2}[kind]
    shape = network["transformer"]
    slots, heads = shape["memory_length"] + 1, shape["num_heads"]
    of_head = (heads, slots, width // heads)
    layer = [((slots, width), "float32"), *[(of_head, "float32")] * 2]
    return layer * shape["num_layers"] + [((), "int32")] * 2


def names(network: Mapping[str, Any]) -> list[str]:
    """What the leaves of `kept` are called."""
    known = {"none": [], "gru": ["hidden"], "lstm": ["cell", "hidden"]}
    if network["memory"] != "gtrxl":
        return known[network["memory"]]
    layers = range(network["transformer"]["num_layers"])
    parts = ("inputs", "keys", "values")
    return [f"layer_{i}_{x}" for i in layers for x in parts] + ["cursor", "length"]


def empty(network: Mapping[str, Any], num_envs: int) -> Carry:
    """Memory in which nothing was seen."""
    return tuple(np.zeros((num_envs, *shape), x) for shape, x in kept(network))


def memory_of(
    network: Mapping[str, Any], arrays: Arrays, name: str, num_features: int
) -> LSTM | GRU | Transformer | None:
    """The weights of the memory behind the torso of that name."""
    kind, width = network["memory"], network["memory_width"]
    if kind == "none":
        return None
    name = f"{name}_memory"
    if kind == "gtrxl":
        return Transformer(arrays, name, num_features, width, network["transformer"])
    return (LSTM if kind == "lstm" else GRU)(arrays, name, num_features, width)


def check(carry: Carry, wanted: Kept, num_envs: int) -> None:
    """Refuses a memory of other shapes.

    Raises:
      ActorError: it is one.
    """
    expected = [(num_envs, *shape) for shape, _ in wanted]
    found = [np.shape(leaf) for leaf in carry]
    if found != expected:
        raise ActorError(
            f"carry must have shapes {expected}, as of initial_carry, got {found}"
        )
