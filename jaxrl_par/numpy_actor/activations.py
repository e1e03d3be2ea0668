"""What comes between layers. Each writes to `out`, which may be its input."""

from collections.abc import Callable

import numpy as np

Activation = Callable[..., np.ndarray]
"""(x, out) -> out"""
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


def relu(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    return np.maximum(x, ZERO, out=out)


def swish(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    return np.multiply(x, HALF + HALF * np.tanh(HALF * x), out=out)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """By tanh, which overflows nowhere."""
    return HALF + HALF * np.tanh(HALF * x)


ACTIVATIONS: dict[str, Activation] = {"tanh": np.tanh, "relu": relu, "swish": swish}
