"""The numbers that keys of JAX give, in NumPy, for whoever acts without it.

A key is its two words, uint32 [..., 2], as `jax.random.key_data` shows those of
Threefry. Bits are JAX's, and uniform numbers too; normal ones differ by rounding. A
test compares them. Leading axes are keys side by side: numbers for a whole unroll are
one call, where one for each step would cost more than to act does.

Sources: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011), section
4; Giles, Approximating the erfinv function (GPU Computing Gems 2, 2010), table 5.
"""

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt32

if TYPE_CHECKING:
    from jaxtyping import Array
else:
    Array = Any  # that of JAX, whose name alone would import it

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_CENTRAL = (
    *(2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087),
    *(-0.00125372503, -0.00417768164, 0.246640727, 1.50140941),
)
_TAIL = (
    *(-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773),
    *(-0.0076224613, 0.00943887047, 1.00167406, 2.83297682),
)


def threefry(
    key: UInt32[Array, "2"] | tuple[Any, Any],
    high: UInt32[Array, "..."],
    low: UInt32[Array, "..."],
) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """Threefry-2x32 with 20 rounds: two words for each 64-bit counter (high, low). In
    NumPy or JAX, as its arguments are."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    x, y = high + schedule[0], low + schedule[1]
    for i in range(5):
        for distance in _ROTATIONS[i % 2]:
            x = x + y
            y = (y << np.uint32(distance)) | (y >> np.uint32(32 - distance))
            y = x ^ y
        x = x + schedule[(i + 1) % 3]
        y = y + schedule[(i + 2) % 3] + np.uint32(i + 1)
    return x, y


def fold_in(key: UInt32[np.ndarray, "*K 2"], number: int) -> UInt32[np.ndarray, "*K 2"]:
    """As `jax.random.fold_in`, of 0 <= `number` < 2**32."""
    counter = np.full((*key.shape[:-1], 1), number, np.uint32)
    return np.concatenate(_words(key, counter), axis=-1)


def split(key: UInt32[np.ndarray, "*K 2"], num: int) -> UInt32[np.ndarray, "*K N 2"]:
    """As `jax.random.split`."""
    return np.stack(_words(key, np.arange(num, dtype=np.uint32)), axis=-1)


def uniform(
    key: UInt32[np.ndarray, "*K 2"], shape: tuple[int, ...]
) -> Float32[np.ndarray, "..."]:
    """As `jax.random.uniform`, in [0, 1)."""
    x, y = _words(key, np.arange(prod(shape), dtype=np.uint32))
    # 23 bits behind the point of a number in [1, 2).
    mantissa = ((x ^ y) >> np.uint32(9)) | np.float32(1).view(np.uint32)
    numbers = mantissa.view(np.float32) - np.float32(1)
    return numbers.reshape(*key.shape[:-1], *shape)


def normal(
    key: UInt32[np.ndarray, "*K 2"], shape: tuple[int, ...]
) -> Float32[np.ndarray, "..."]:
    """As `jax.random.normal`, up to rounding."""
    low = np.nextafter(np.float32(-1), np.float32(0))
    between = uniform(key, shape) * (np.float32(1) - low) + low
    return np.sqrt(np.float32(2)) * _erf_inv(np.maximum(between, low))


def _words(key: Any, counter: Any) -> tuple[Any, Any]:
    """Two words [*K, N] of keys [*K, 2] for counters that have no higher word."""
    first, second = key[..., :1], key[..., 1:]
    return threefry((first, second), np.zeros_like(counter), counter)


def _erf_inv(x: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    w = -np.log1p(-x * x)
    central = w < 5
    shifted = np.where(central, w - np.float32(2.5), np.sqrt(w) - np.float32(3))
    result = np.zeros_like(x)
    for near, far in zip(_CENTRAL, _TAIL, strict=True):
        result = np.where(central, np.float32(near), np.float32(far)) + result * shifted
    return result * x
