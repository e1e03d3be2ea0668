"""What an observation is to a network: an image or numbers, and in which units."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Num

from jaxrl_par.types import Box, MultiDiscrete, Spec

Layout = Literal["last", "first", "none"]


def layout(spec: Spec) -> Layout | None:
    """Where an image has its channels, None for what no torso for images reads.

    An image is [height, width, channels]. Its channels come first where that axis is
    shorter than both others, and what it shows are bytes, as pixels are, or a square,
    or at least 16 x 16. Bytes [height, width] are an image too, from 8 x 8 on: a stack
    of few vectors is none.
    """
    if not isinstance(spec, Box):
        return None
    is_bytes = spec.dtype == np.uint8
    if len(spec.shape) == 2:
        return "none" if is_bytes and min(spec.shape) >= 8 else None
    if len(spec.shape) != 3:
        return None
    first, *sides = spec.shape
    if first < min(sides) and (is_bytes or min(sides) >= min(16, max(sides))):
        return "first"
    return "last" if min(spec.shape[:2]) >= 3 else None


def is_image(spec: Spec) -> bool:
    """Whether a torso for images reads it."""
    return layout(spec) is not None


def image_shape(spec: Spec) -> tuple[int, ...]:
    """Height, width and channels of an image."""
    shape = spec.shape
    if layout(spec) == "none":
        return (*shape, 1)
    return (*shape[1:], shape[0]) if layout(spec) == "first" else shape


def channels_last(spec: Spec, x: Num[Array, "N ..."]) -> Num[Array, "N H W C"]:
    """Images as convolutions read them."""
    where = layout(spec)
    if where == "none":
        return x[..., None]
    return jnp.moveaxis(x, 1, -1) if where == "first" else x


def one_hots(spec: MultiDiscrete, x: Int[Array, "N ..."]) -> Bool[Array, "N K"]:
    """True at what each of the choices is, K = the sum of nvec."""
    # For a number of rows without a value, too, as in what is exported for any.
    flat = x.reshape(x.shape[0], -1)
    columns = [
        flat[:, i, None] == jnp.arange(size)[None] for i, size in enumerate(spec.sizes)
    ]
    return jnp.concatenate(columns, axis=1)


def scaled(spec: Box, x: Num[Array | np.ndarray, "N ..."]) -> Num[Array, "N ..."]:
    """Integers from their bounds to [0, 1], in float32; real numbers as they are."""
    x = jnp.asarray(x)
    if not np.issubdtype(spec.dtype, np.integer):
        return x
    low, width = (np.broadcast_to(y, spec.shape)[None] for y in scale(spec))
    x = x.astype(jnp.float32)
    x = x - low if low.any() else x
    # One number, where it is one, is no array in the compiled program.
    return x / (width if np.ptp(width) else width.flat[0])


def scale(spec: Box) -> tuple[np.ndarray, np.ndarray]:
    """(low, high - low) of integers, both float32; (0, 1) where there are no bounds.

    A byte without bounds has those of its type. The limits of 32 bits and more are what
    simulators write for none.
    """
    limits, most = np.iinfo(spec.dtype), 2**31 - 1
    low, high = np.float64(spec.low), np.float64(spec.high)
    if limits.bits == 8:
        low, high = (np.clip(x, limits.min, limits.max) for x in (low, high))
    bounded = (low > -most) & (high < most) & (low < high)
    low, width = np.where(bounded, low, 0), np.where(bounded, high - low, 1)
    return np.asarray(low, np.float32), np.asarray(width, np.float32)
