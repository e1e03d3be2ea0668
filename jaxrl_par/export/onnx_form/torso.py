"""From observations to features, and the masks among them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrl_par.export.onnx_form.graph import Graph, Value
from jaxrl_par.numpy_actor.arrays import Arrays

_ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu"}


def features(
    graph: Graph, config: Mapping[str, Any], arrays: Arrays, name: str
) -> tuple[str, dict[str, tuple[str, tuple[int, ...]]]]:
    """Features [B, D] of the observations, and by the part of the action that it is of
    each mask with its shape.

    Args:
      name: of the torso's parameters.
    """
    network = config["network"]
    deep = network["torso"] in ("shallow", "deep")
    activation = "relu" if deep else network["activation"]
    before, after, num_images, masks = [], [], 0, {}
    for index, spec in enumerate(config["observations"]):
        x = graph.input(f"obs_{index}", spec["dtype"], spec["shape"])
        if spec["kind"] == "mask":
            masks[spec["of"]] = (x, tuple(spec["shape"]))
            continue
        x = _read(graph, config, arrays, index, x)
        image = spec.get("channels") and network["torso"] != "mlp"
        if image:
            x = _channels_first(graph, x, spec["channels"])
            parts = (graph, arrays, name, num_images)
            if deep:
                x = _IMAGES[network["torso"]](*parts, x)
            else:
                x = _single(*parts, x, activation)
            num_images += 1
            x = graph("Transpose", x, perm=[0, 2, 3, 1])
        late = deep and not image
        (after if late else before).append(graph.rows(x, -1))
    x = _joined(graph, before)
    for i in range(len(network["widths"])):
        x = dense(graph, arrays, f"{name}.MLP_0.Linear_{i}", x)
        x = _activated(graph, x, activation)
    return _joined(graph, [x, *after]), masks


def dense(graph: Graph, arrays: Arrays, name: str, x: Value) -> str:
    """x @ kernel + bias."""
    return graph("Gemm", x, arrays.of(f"{name}.kernel"), arrays.of(f"{name}.bias"))


def _joined(graph: Graph, vectors: list[str]) -> str:
    return vectors[0] if len(vectors) == 1 else graph("Concat", *vectors, axis=1)


def _activated(graph: Graph, x: Value, activation: str) -> str:
    if activation == "swish":
        return graph("Mul", x, graph("Sigmoid", x))
    return graph(_ACTIVATIONS[activation], x)


def _read(
    graph: Graph, config: Mapping[str, Any], arrays: Arrays, index: int, x: str
) -> str:
    """A leaf in the units of the network, float32."""
    spec = config["observations"][index]
    if spec["kind"] == "discrete":
        return _one_hot(graph, spec, graph.axes(x, 1), [spec["num_values"]])
    if spec["kind"] == "multi_discrete":
        return _one_hot(graph, spec, graph.rows(x, -1), np.ravel(spec["nvec"]).tolist())
    if spec["dtype"] != "float32":
        x = graph.cast(x, np.float32)
    if "scale" in spec:
        low, width = (np.float32(spec["scale"][x]) for x in ("low", "width"))
        x = graph("Div", graph("Sub", x, low), width)
    if f"statistics.mean.{index}" in arrays:
        mean, variance = (
            arrays.of(f"statistics.{y}.{index}") for y in ("mean", "variance")
        )
        scale = np.float32(1) / np.sqrt(variance + np.float32(1e-8))
        clip = np.float32(config["normalization"]["clip"])
        x = graph("Mul", graph("Sub", x, mean), scale)
        x = graph("Clip", x, -clip, clip)
    return x


def _one_hot(graph: Graph, spec: Mapping[str, Any], x: str, sizes: list[int]) -> str:
    """[B, sum of sizes] of integers [B, len(sizes)]."""
    which = np.repeat(np.arange(len(sizes)), sizes)
    values = np.concatenate([np.arange(size) for size in sizes])
    x = graph("Gather", x, which, axis=1)
    return graph.cast(graph("Equal", x, values.astype(spec["dtype"])), np.float32)


def _channels_first(graph: Graph, x: str, channels: str) -> str:
    """An image as [B, C, H, W]."""
    if channels == "none":
        return graph.axes(x, 1)
    return x if channels == "first" else graph("Transpose", x, perm=[0, 3, 1, 2])


def _convolved(
    graph: Graph, arrays: Arrays, name: str, x: Value,
    *, window: int = 3, stride: int = 1, padding: int = 1,
) -> str:  # fmt: skip
    kernel = arrays.of(f"{name}.kernel")
    kernel = kernel.reshape(window, window, -1, kernel.shape[1]).transpose(3, 2, 0, 1)
    strides, pads = [stride] * 2, [padding] * 4
    bias = arrays.of(f"{name}.bias")
    return graph("Conv", x, kernel, bias, strides=strides, pads=pads)


def _single(graph, arrays, name, index, x, activation) -> str:
    name = f"{name}.PatchConv_{index}.Linear_0"
    return _activated(graph, _convolved(graph, arrays, name, x, padding=0), activation)


def _shallow(graph, arrays, name, index, x) -> str:
    name = f"{name}.Shallow_{index}"
    for i, (window, stride) in enumerate(((8, 4), (4, 2))):
        sizes = {"window": window, "stride": stride, "padding": 0}
        x = graph("Relu", _convolved(graph, arrays, f"{name}.Conv_{i}", x, **sizes))
    return x


def _deep(graph, arrays, name, index, x) -> str:
    name = f"{name}.Deep_{index}"
    for i in range(3):
        x = _convolved(graph, arrays, f"{name}.Conv_{i}", x)
        # As JAX's SAME: where a side is even, its window begins inside.
        pooling = {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}
        x = graph("MaxPool", x, **pooling)
        for j in (2 * i, 2 * i + 1):
            y = x
            for k in (0, 1):
                y = graph("Relu", y)
                y = _convolved(graph, arrays, f"{name}.Residual_{j}.Conv_{k}", y)
            x = graph("Add", x, y)
    return graph("Relu", x)


_IMAGES = {"shallow": _shallow, "deep": _deep}
