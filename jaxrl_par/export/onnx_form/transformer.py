"""GTrXL. Equations and sources are those of `networks.gtrxl` and `.attention`.

Axis letters: H heads, K their width, S = M + 1 slots of a ring.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrl_par.export.onnx_form.graph import Graph
from jaxrl_par.export.onnx_form.torso import dense
from jaxrl_par.numpy_actor.arrays import Arrays
from jaxrl_par.numpy_actor.transformer import by_distance

_ONE, _EPSILON = np.float32(1), 1e-5


def transformed(
    graph: Graph, network: Mapping[str, Any], arrays: Arrays, name: str, x: str,
    first: str, carry: Mapping[str, str],
) -> tuple[str, dict[str, str]]:  # fmt: skip
    """The stream [B, D] after all layers, and the memory after the step."""
    config, width = network["transformer"], network["memory_width"]
    slots = config["memory_length"] + 1
    cursor, length = carry["cursor"], carry["length"]
    length = graph("Where", first, np.int32(0), length)
    reach = graph("Min", length, np.int32(slots - 1))
    slot = graph.axes(cursor, 1)
    age = graph(
        "Mod", graph("Sub", slot, np.arange(slots, dtype=np.int32)), np.int32(slots)
    )
    times = {
        "new": graph("Equal", age, np.int32(0)),
        # ONNX 17 compares int32 by < alone in some runtimes.
        "seen": graph("LessOrEqual", age, graph.axes(reach, 1)),
        "order": graph("Sub", np.int64(slots - 1), graph.cast(age, np.int64)),
    }
    x, after = dense(graph, arrays, f"{name}.Linear_0", x), {}
    biases = [arrays.of(f"{name}.{y}_bias") for y in ("content", "position")]
    for i in range(config["num_layers"]):
        layer = _Layer(graph, arrays, f"{name}.layer_{i}", config, width)
        parts = ("inputs", "keys", "values")
        rings = [carry[f"layer_{i}_{y}"] for y in parts]
        x, rings = layer(x, rings, times, biases)
        after |= {f"layer_{i}_{y}": z for y, z in zip(parts, rings, strict=True)}
    after["cursor"] = graph("Mod", graph("Add", cursor, np.int32(1)), np.int32(slots))
    after["length"] = graph("Add", reach, np.int32(1))
    return x, after


class _Layer:
    """The nodes of a layer."""

    def __init__(
        self, graph: Graph, arrays: Arrays, name: str, config: Mapping[str, Any],
        width: int,
    ):  # fmt: skip
        self._graph, self._arrays, self._name = graph, arrays, name
        self._gate_kind = config["gate"]
        self._slots = config["memory_length"] + 1
        self._shape = (config["num_heads"], width // config["num_heads"])

    def __call__(
        self, x: str, rings: list[str], times: Mapping[str, str],
        biases: list[np.ndarray],
    ) -> tuple[str, list[str]]:  # fmt: skip
        """Rows [B, D], and the rings with them in it."""
        graph = self._graph
        y, rings = self._attention(x, rings, times, biases)
        x = self._gate("attention_gate", x, graph("Relu", y))
        y = self._norm(x, "mlp_norm.scale", "mlp_norm.bias")
        for i in (0, 1):
            y = dense(graph, self._arrays, f"{self._name}.Linear_{i}", y)
            y = graph("Relu", y)
        return self._gate("mlp_gate", x, y), rings

    def _of(self, name: str) -> np.ndarray:
        return self._arrays.of(f"{self._name}.{name}")

    def _norm(self, x: str, scale: str, bias: str) -> str:
        arrays = (self._of(scale), self._of(bias))
        return self._graph("LayerNormalization", x, *arrays, epsilon=_EPSILON)

    def _attention(self, x, rings, times, biases) -> tuple[str, list[str]]:
        graph, (heads, size) = self._graph, self._shape
        normed = self._norm(x, "attention.scale", "attention.shift")
        qkv = graph("MatMul", normed, self._of("attention.query_key_value"))
        q, k, v = (graph.rows(y, heads, 1, size) for y in graph.split(qkv, 3))
        new = graph.axes(times["new"], 1, 3)
        inputs = graph("Where", graph.axes(times["new"], 2), graph.axes(x, 1), rings[0])
        keys, values = (
            graph("Where", new, *pair) for pair in ((k, rings[1]), (v, rings[2]))
        )
        scale = np.float32(size**-0.5)
        content, position = (
            graph("Mul", graph("Add", q, bias[:, None]), scale) for bias in biases
        )
        content = graph("Transpose", content, perm=[0, 1, 3, 2])
        scores = graph.rows(graph("MatMul", keys, content), heads, self._slots)
        distances = by_distance(self._of("attention.position"), heads, self._slots)
        moved = graph.rows(graph("MatMul", position, distances), heads, self._slots)
        # From the order of distances to that of the ring.
        order = graph.like(graph.axes(times["order"], 1), moved)
        moved = graph("GatherElements", moved, order, axis=2)
        scores = graph("Add", scores, moved)
        seen = graph.axes(times["seen"], 1)
        scores = graph("Where", seen, scores, np.float32(-np.inf))
        weights = graph.axes(graph("Softmax", scores, axis=2), 2)
        mixed = graph.rows(graph("MatMul", weights, values), heads * size)
        y = graph("MatMul", mixed, self._of("attention.output"))
        return y, [inputs, keys, values]

    def _gate(self, name: str, x: str, y: str) -> str:
        """As `networks.gates.Gate`."""
        graph, kind = self._graph, self._gate_kind

        def product(matrix: str, rows: str) -> str:
            return graph("MatMul", rows, self._of(f"{name}.{matrix}"))

        if kind == "residual":
            return graph("Add", x, y)
        if kind == "input":
            return graph("Add", graph("Mul", graph("Sigmoid", product("w", x)), x), y)
        bias = self._of(f"{name}.bias")
        if kind == "output":
            share = graph("Sigmoid", graph("Sub", product("w", x), bias))
            return graph("Add", x, graph("Mul", share, y))
        if kind == "highway":
            share = graph("Sigmoid", graph("Add", product("w", x), bias))
            return self._between(share, y, x)
        if kind == "sigmoid_tanh":
            w, u = graph.split(product("wu", y), 2)
            share = graph("Sigmoid", graph("Sub", w, bias))
            return graph("Add", x, graph("Mul", share, graph("Tanh", u)))
        r_y, z_y, h_y = graph.split(product("w", y), 3)
        r_x, z_x = graph.split(product("u", x), 2)
        r = graph("Sigmoid", graph("Add", r_y, r_x))
        z = graph("Sigmoid", graph("Sub", graph("Add", z_y, z_x), bias))
        h = graph("Add", h_y, product("u_h", graph("Mul", r, x)))
        return self._between(z, x, graph("Tanh", h))

    def _between(self, share: str, x: str, y: str) -> str:
        """(1 - share) x + share y."""
        graph = self._graph
        rest = graph("Sub", _ONE, share)
        return graph("Add", graph("Mul", rest, x), graph("Mul", share, y))
