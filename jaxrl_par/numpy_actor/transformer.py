"""GTrXL, one step at a time: attention to the last M steps, and gates.

Rows are environments here, [B, D], as in the memory: every environment attends to rows
of its own. Axis letters: H heads, K their width, S = M + 1 slots of a ring. Equations
and sources are those of `networks.gtrxl`, `networks.attention` and `networks.gates`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .activations import ONE, ZERO, sigmoid
from .arrays import Arrays

_EPSILON = np.float32(1e-5)


class Transformer:
    """The weights of all layers."""

    room = 0

    def __init__(
        self, arrays: Arrays, name: str, num_features: int, width: int,
        config: Mapping[str, Any],
    ):  # fmt: skip
        self.width = width
        self.reader = arrays.linear(f"{name}.Linear_0", num_features, width)
        """[D, num_features + 1]: features to the stream."""
        heads = config["num_heads"]
        biases = [
            arrays.get(f"{name}.{x}_bias", heads, width // heads)
            for x in ("content", "position")
        ]
        self._most = config["memory_length"]
        self._layers = [
            _Layer(arrays, f"{name}.layer_{i}", width, config, biases)
            for i in range(config["num_layers"])
        ]

    def bind(
        self, num_envs: int, inputs: np.ndarray, outputs: np.ndarray
    ) -> Callable[[np.ndarray, Sequence[np.ndarray]], tuple[np.ndarray, ...]]:
        """As that of recurrent memories."""
        stream = np.empty((self.width, num_envs), np.float32)

        def remember(
            first: np.ndarray, carry: Sequence[np.ndarray]
        ) -> tuple[np.ndarray, ...]:
            *rings, cursor, length = carry
            reach = np.minimum(np.where(first, 0, length), self._most)
            np.dot(self.reader, inputs, out=stream)
            x, after = stream.T, []
            for i, layer in enumerate(self._layers):
                x, ring = layer(x, rings[3 * i : 3 * i + 3], cursor, reach)
                after += ring
            np.copyto(outputs, x.T)
            counts = ((cursor + 1) % (self._most + 1), reach + 1)
            return *after, *(x.astype(np.int32) for x in counts)

        return remember


class _Layer:
    """Attention and dense layers, each behind a norm and joined by a gate."""

    def __init__(
        self, arrays: Arrays, name: str, width: int, config: Mapping[str, Any],
        biases: list[np.ndarray],
    ):  # fmt: skip
        heads, slots = config["num_heads"], config["memory_length"] + 1
        self._shape = (heads, width // heads)
        self._content, self._position = biases
        one, square = f"{name}.attention", (width, width)
        self._norm = [arrays.get(f"{one}.{x}", width) for x in ("scale", "shift")]
        self._qkv = arrays.get(f"{one}.query_key_value", width, 3 * width)
        position = arrays.get(f"{one}.position", *square)
        self._distances = by_distance(position, heads, slots)
        self._output = arrays.get(f"{one}.output", *square)
        self._mlp_norm = [
            arrays.get(f"{name}.mlp_norm.{x}", width) for x in ("scale", "bias")
        ]
        hidden = config["mlp_width"]
        self._mlp = [
            arrays.linear(f"{name}.Linear_0", width, hidden).T,
            arrays.linear(f"{name}.Linear_1", hidden, width).T,
        ]
        self._gates = [
            _Gate(arrays, f"{name}.{x}_gate", width, config["gate"])
            for x in ("attention", "mlp")
        ]

    def __call__(
        self, x: np.ndarray, rings: Sequence[np.ndarray], slot: np.ndarray,
        reach: np.ndarray,
    ) -> tuple[np.ndarray, list[np.ndarray]]:  # fmt: skip
        """What the layer makes of rows [B, D], and its rings with them in it."""
        num_envs, num_slots = len(x), self._distances.shape[2]
        every = np.arange(num_envs)
        q, k, v = (
            y.reshape(num_envs, *self._shape)
            for y in np.split(_normalised(x, *self._norm) @ self._qkv, 3, axis=1)
        )
        inputs, keys, values = (ring.copy() for ring in rings)
        inputs[every, slot] = x
        keys[every, :, slot], values[every, :, slot] = k, v
        scale = np.float32(self._shape[1] ** -0.5)
        scores = keys @ ((q + self._content) * scale)[..., None]
        moved = ((q + self._position) * scale).swapaxes(0, 1) @ self._distances
        # From the order of distances to that of the ring.
        age = (slot[:, None] - np.arange(num_slots)) % num_slots
        order = (num_slots - 1 - age)[:, None]
        moved = np.take_along_axis(moved.swapaxes(0, 1), order, axis=2)
        scores = np.where(
            (age <= reach[:, None])[:, None], scores[..., 0] + moved, -np.inf
        )
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        mixed = (weights[:, :, None] @ values).reshape(x.shape)
        x = self._gates[0](x, np.maximum(mixed @ self._output, ZERO))
        y = _normalised(x, *self._mlp_norm)
        for kernel in self._mlp:
            y = np.maximum(y @ kernel[:-1] + kernel[-1], ZERO)
        return self._gates[1](x, y), [inputs, keys, values]


class _Gate:
    """Joins a stream and what a submodule adds to it, both [B, D]."""

    def __init__(self, arrays: Arrays, name: str, width: int, kind: str):
        self._join = getattr(self, f"_{kind}")
        if kind not in ("residual", "input"):
            self._bias = arrays.get(f"{name}.bias", width)
        matrices = {"residual": {}, "sigmoid_tanh": {"wu": 2}}
        matrices["gru"] = {"w": 3, "u": 2, "u_h": 1}
        self._kernels = {
            x: arrays.get(f"{name}.{x}", width, count * width)
            for x, count in matrices.get(kind, {"w": 1}).items()
        }

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self._join(x, y)

    def _residual(self, x, y):
        return x + y

    def _input(self, x, y):
        return sigmoid(x @ self._kernels["w"]) * x + y

    def _output(self, x, y):
        return x + sigmoid(x @ self._kernels["w"] - self._bias) * y

    def _highway(self, x, y):
        share = sigmoid(x @ self._kernels["w"] + self._bias)
        return share * x + (ONE - share) * y

    def _sigmoid_tanh(self, x, y):
        w, u = np.split(y @ self._kernels["wu"], 2, axis=1)
        return x + sigmoid(w - self._bias) * np.tanh(u)

    def _gru(self, x, y):
        r_y, z_y, h_y = np.split(y @ self._kernels["w"], 3, axis=1)
        r_x, z_x = np.split(x @ self._kernels["u"], 2, axis=1)
        r, z = sigmoid(r_y + r_x), sigmoid(z_y + z_x - self._bias)
        h = np.tanh(h_y + (r * x) @ self._kernels["u_h"])
        return (ONE - z) * x + z * h


def _normalised(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and variance 1, scaled and moved."""
    centred = x - x.mean(axis=1, keepdims=True)
    variance = np.square(centred).mean(axis=1, keepdims=True)
    return centred / np.sqrt(variance + _EPSILON) * scale + shift


def by_distance(position: np.ndarray, num_heads: int, num_slots: int) -> np.ndarray:
    """What queries of each head are multiplied by, [H, K, S], for the distances from
    M to 0."""
    width = len(position)
    found = position @ _sinusoids(num_slots, width)[::-1].T
    return found.reshape(num_heads, -1, num_slots)


def _sinusoids(num_distances: int, width: int) -> np.ndarray:
    """[S, D]: sin(d w) and cos(d w) for d = 0 .. S - 1."""
    frequencies = 10000.0 ** (-2 * np.arange((width + 1) // 2) / width)
    angles = np.arange(num_distances)[:, None] * frequencies
    both = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return both[:, :width].astype(np.float32)
