"""From features to parameters of the policy, and its mode as the environment takes it.

Parts of an action, and names, are those of `numpy_actor.policies`.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from jaxrl_par.export.onnx_form.graph import Graph
from jaxrl_par.numpy_actor.arrays import Arrays
from jaxrl_par.numpy_actor.policies import HEADS, bounds, prefixes, together

_LIMIT = np.float32(1) - np.float32(1e-6)
_IMPOSSIBLE = np.float32(-np.inf)

Found = dict[str, tuple[str, Any, tuple[int, ...]]]
"""By name: the value, its dtype, and its shape behind B."""


def decided(
    graph: Graph, config: Mapping[str, Any], arrays: Arrays, x: str,
    masks: Mapping[str, tuple[str, tuple[int, ...]]],
) -> Found:  # fmt: skip
    """Outputs of the program: actions, and the policy's parameters.

    Args:
      x: features [B, D].
      masks: by the part of the action that it is of, a mask and its shape.
    """
    action = config["action"]
    specs = action.get("parts", [action])
    kernel, bias = (arrays.of(f"{HEADS}.{y}") for y in ("policy", "policy_bias"))
    actions, parameters, begin, real = {}, {}, 0, 0
    for name, spec in zip(prefixes(action), specs, strict=True):
        mask, shape = masks.get(spec["name"], (None, None))
        width = num_outputs(spec, shape)
        part = slice(begin, begin + width)
        begin += width
        # A product for each part: nothing is cut apart then.
        rows = graph("Gemm", x, kernel[:, part], bias[part])
        if spec["kind"] == "box":
            log_std = arrays.of(f"{HEADS}.log_std")[real : real + width]
            real += width
            squashed = config["network"]["policy"] == "squashed"
            one, told = _reals(graph, spec, rows, log_std, squashed)
        else:
            one, told = _choices(graph, spec, rows, mask, shape)
        actions[spec["name"]] = one
        parameters |= {f"{name}{key}": y for key, y in told.items()}
    return actions | parameters


def num_outputs(spec: Mapping[str, Any], mask: tuple[int, ...] | None) -> int:
    """Outputs of the last layer for a part."""
    if spec["kind"] == "box":
        return prod(spec["shape"])
    if spec["kind"] == "discrete":
        return spec["num_values"]
    sizes = np.ravel(spec["nvec"]).tolist()
    return prod(sizes) if together(spec, mask) else sum(sizes)


def _choices(
    graph: Graph, spec: Mapping[str, Any], rows: str, mask: str | None,
    shape: tuple[int, ...] | None,
) -> tuple[Any, Found]:  # fmt: skip
    if mask is not None:
        rows = graph("Where", graph.rows(mask, -1), rows, _IMPOSSIBLE)
    start, number = np.array(spec["start"], np.int32), num_outputs(spec, shape)
    if spec["kind"] == "discrete":
        chosen = graph("Add", _likeliest(graph, rows), start)
        return (chosen, np.int32, ()), {"logits": (rows, np.float32, (number,))}
    given, sizes = tuple(spec["shape"]), np.ravel(spec["nvec"]).tolist()
    inner = "" if len(given) == 1 else "inner."
    if together(spec, shape):
        index = graph.axes(_likeliest(graph, rows), 1)
        strides = [prod(sizes[i + 1 :]) for i in range(len(sizes))]
        strides, base = (np.array(x, np.int32) for x in (strides, sizes))
        chosen = graph("Mod", graph("Div", index, strides), base)
        told = {f"{inner}choice.logits": (rows, np.float32, (number,))}
    else:
        parts = graph.split(rows, sizes)
        likeliest = (graph.axes(_likeliest(graph, part), 1) for part in parts)
        chosen = graph("Concat", *likeliest, axis=1)
        padded = [_padded(graph, y, sizes, i) for i, y in enumerate(parts)]
        stacked = graph("Concat", *padded, axis=1)
        told = {f"{inner}logits": (stacked, np.float32, (len(sizes), max(sizes)))}
    chosen = graph("Add", graph.rows(chosen, *given), start)
    return (chosen, np.int32, given), told


def _likeliest(graph: Graph, rows: str) -> str:
    """Int32 [B], the first of the largest."""
    return graph.cast(graph("ArgMax", rows, axis=1, keepdims=0), np.int32)


def _padded(graph: Graph, rows: str, sizes: list[int], index: int) -> str:
    """Logits of one choice, [B, 1, the largest size]."""
    most = max(sizes)
    if min(sizes) < most:
        # Where nothing is allowed all are alike, but for what is not there.
        largest = graph("ReduceMax", rows, axes=[1], keepdims=1)
        none = graph("Equal", largest, _IMPOSSIBLE)
        rows = graph("Where", none, np.float32(0), rows)
        pads = np.array([0, 0, 0, most - sizes[index]], np.int64)
        rows = graph("Pad", rows, pads, _IMPOSSIBLE)
    return graph.axes(rows, 1)


def _reals(
    graph: Graph,
    spec: Mapping[str, Any],
    mean: str,
    log_std: np.ndarray,
    squashed: bool,
) -> tuple[Any, Found]:
    shape, number = tuple(spec["shape"]), prod(spec["shape"])
    low, high = (
        bounds(spec[side], shape, none)
        for side, none in (("low", -np.inf), ("high", np.inf))
    )
    equal, action = {"log_std": log_std}, mean
    if squashed:
        centre, half_width = low / 2 + high / 2, (high - low) / 2
        equal |= {"centre": centre, "half_width": half_width}
        unit = graph("Clip", graph("Tanh", mean), -_LIMIT, _LIMIT)
        action = graph("Add", centre, graph("Mul", half_width, unit))
    action = graph("Min", graph("Max", action, low), high)
    inner = "" if len(shape) == 1 else "inner."
    told = {"mean": mean} | {name: graph.like(x, mean) for name, x in equal.items()}
    named = {f"{inner}{name}": (x, np.float32, (number,)) for name, x in told.items()}
    return (graph.rows(action, *shape), np.float32, shape), named
