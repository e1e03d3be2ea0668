"""What follows the features: an LSTM, a GRU, a GTrXL or nothing."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrl_par.export.onnx_form.graph import Graph
from jaxrl_par.export.onnx_form.transformer import transformed
from jaxrl_par.numpy_actor.arrays import Arrays
from jaxrl_par.numpy_actor.memories import kept, names

Outputs = dict[str, tuple[str, Any, tuple[int, ...]]]
"""By name: the value, its dtype, and its shape behind B."""


def remembered(
    graph: Graph,
    network: Mapping[str, Any],
    arrays: Arrays,
    name: str,
    x: str,
    first: str,
) -> tuple[str, Outputs]:
    """What the policy reads, and the memory after the step.

    Args:
      name: of the memory's parameters.
    """
    leaves = dict(zip(names(network), kept(network), strict=True))
    carry = {n: graph.input(n, dtype, shape) for n, (shape, dtype) in leaves.items()}
    kind = network["memory"]
    if kind == "none":
        return x, {}
    if kind == "gtrxl":
        x, after = transformed(graph, network, arrays, name, x, first, carry)
    else:
        empty = graph.axes(first, 1)
        carry = {n: graph("Where", empty, np.float32(0), y) for n, y in carry.items()}
        after = (_lstm if kind == "lstm" else _gru)(graph, arrays, name, x, **carry)
        x = after["hidden"]
    return x, {f"next_{n}": (after[n], d, shape) for n, (shape, d) in leaves.items()}


def _lstm(graph: Graph, arrays: Arrays, name: str, x: str, cell: str, hidden: str):
    """Gates by hand: those of the operator LSTM are in another order, and take their
    bias twice."""
    kernel = [arrays.of(f"{name}.{y}") for y in ("input", "recurrent")]
    bias = arrays.of(f"{name}.bias")
    both = graph("Concat", x, hidden, axis=1)
    gates = graph("Gemm", both, np.concatenate(kernel), bias)
    i, f, g, o = graph.split(gates, 4)
    kept_part = graph("Mul", graph("Sigmoid", graph("Add", f, np.float32(1))), cell)
    new = graph("Mul", graph("Sigmoid", i), graph("Tanh", g))
    cell = graph("Add", kept_part, new)
    hidden = graph("Mul", graph("Sigmoid", o), graph("Tanh", cell))
    return {"cell": cell, "hidden": hidden}


def _gru(graph: Graph, arrays: Arrays, name: str, x: str, hidden: str):
    w, u, b, d = (
        arrays.of(f"{name}.{y}")
        for y in ("input", "recurrent", "bias", "candidate_bias")
    )
    r, z, n = graph.split(graph("Gemm", x, w, b), 3)
    r_h, z_h, n_h = graph.split(graph("MatMul", hidden, u), 3)
    r, z = (graph("Sigmoid", graph("Add", *pair)) for pair in ((r, r_h), (z, z_h)))
    n = graph("Add", n, graph("Mul", r, graph("Add", n_h, d)))
    n = graph("Tanh", n)
    hidden = graph("Add", n, graph("Mul", z, graph("Sub", hidden, n)))
    return {"hidden": hidden}
