"""The image networks of IMPALA: a shallow one and a deep, residual one.

Images are [N, H, W, C]. Results are those of `lax.conv` and `nn.max_pool`; the
gradients are computed differently on CPU, where JAX's own leave the cache. Measured on
two cores, for 128 images: 70 against 17 ms for a 3x3 convolution of 42 x 42 x 16,
390 against 30 ms for the pooling of 84 x 84 x 16; inside `lax.scan` XLA's kernel
gradients take ten times as long again. They know reverse mode only.

Source: Espeholt et al., arXiv:1802.01561, figure 3; the authors' code for padding.
"""

from collections.abc import Callable
from functools import partial
from math import prod

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from jaxrl_par.networks.layers import linear, orthogonal

# Patches of 2 MB, as one core's cache holds. Measured from 2**15 to 2**20.
_CHUNK = 2**19

Images = Float[Array, "N H W C"]


class Shallow(nn.Module):
    """Two strided convolutions without padding: 84 x 84 becomes 9 x 9 x 32.

    Images have at least 20 x 20 pixels.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "N H_ W_ F"]:
        scale = 2.0**0.5
        x = nn.relu(Conv(16, 8, 4, 0, scale, self.dtype)(x))
        return nn.relu(Conv(32, 4, 2, 0, scale, self.dtype)(x))


class Deep(nn.Module):
    """Fifteen convolutions in three sections: 84 x 84 becomes 11 x 11 x 32."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "N H_ W_ F"]:
        for channels in (16, 32, 32):
            x = max_pool(Conv(channels, dtype=self.dtype)(x))
            x = Residual(self.dtype)(x)
            x = Residual(self.dtype)(x)
        return nn.relu(x)


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Images) -> Images:
        y = Conv(x.shape[-1], dtype=self.dtype)(nn.relu(x))
        return x + Conv(x.shape[-1], dtype=self.dtype)(nn.relu(y))


class Conv(nn.Module):
    """A convolution whose kernel is kept as a matrix [window window C, features]."""

    features: int
    window: int = 3
    stride: int = 1
    padding: int = 1
    """Zeros on each of the four sides."""
    scale: float = 1.0
    """Scale of the orthogonal kernel. 1 keeps a stack of residual blocks in bounds."""
    dtype: DTypeLike = jnp.float32
    """Dtype of the computation; parameters are float32."""

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "N H_ W_ F"]:
        window = (self.window, self.window, x.shape[-1])
        shape = (prod(window), self.features)
        kernel = self.param("kernel", orthogonal(self.scale), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x, kernel, bias = (leaf.astype(self.dtype) for leaf in (x, kernel, bias))
        kernel = kernel.reshape(*window, self.features)
        return convolve(x, kernel, bias, self.stride, self.padding)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def convolve(
    x: Images,
    kernel: Float[Array, "K K C F"],
    bias: Float[Array, " F"],
    stride: int = 1,
    padding: int = 0,
) -> Float[Array, "N H_ W_ F"]:
    """The convolution of images, with zeros around them, and a kernel.

    Raises:
      ValueError: the stride does not divide the width of the kernel.
    """
    if kernel.shape[0] % stride:
        raise ValueError(f"stride {stride} does not divide {kernel.shape[0]}")
    return _convolve(x, (kernel, bias), stride, padding)


def _convolve_forward(x, kernel, bias, stride, padding):
    return convolve(x, kernel, bias, stride, padding), (x, (kernel, bias))


def _convolve_backward(stride, padding, saved, gradient):
    x, (kernel, bias) = saved
    settings = {"stride": stride, "padding": padding}
    size = prod(gradient.shape[1:3]) * prod(kernel.shape[:3])
    dx, (dkernel, dbias) = jax.lax.platform_dependent(
        x,
        (kernel, bias),
        gradient,
        cpu=partial(_in_chunks, partial(_by_patches, **settings), size),
        default=partial(_at_once, partial(_convolve, **settings)),
    )
    return dx, dkernel, dbias


convolve.defvjp(_convolve_forward, _convolve_backward)


def _convolve(x: Images, params, stride: int, padding: int):
    kernel, bias = params
    strides, sides = (stride,) * 2, ((padding, padding),) * 2
    y = jax.lax.conv_general_dilated(
        x, kernel, strides, sides, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + bias[None, None, None]


def _by_patches(x: Images, params, stride: int, padding: int):
    """`_convolve` as one matmul."""
    kernel, bias = params
    features = kernel.shape[3]
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    sizes = [(size - kernel.shape[0]) // stride + 1 for size in x.shape[1:3]]
    # Blocks of stride x stride pixels become pixels with all their channels, and the
    # stride becomes 1: patches are then a few large copies.
    num_blocks = kernel.shape[0] // stride
    height, width = (size + num_blocks - 1 for size in sizes)
    x = x[:, : height * stride, : width * stride]
    x = x.reshape(x.shape[0], height, stride, width, stride, x.shape[3])
    x = x.swapaxes(2, 3).reshape(x.shape[0], height, width, -1)
    kernel = kernel.reshape(num_blocks, stride, num_blocks, stride, -1, features)
    kernel = kernel.swapaxes(1, 2).reshape(-1, features)
    offsets = [(i, j) for i in range(num_blocks) for j in range(num_blocks)]
    patches = [x[:, i : i + sizes[0], j : j + sizes[1]] for i, j in offsets]
    patches = jnp.concatenate(patches, axis=-1).reshape(-1, kernel.shape[0])
    return linear(patches, kernel, bias).reshape(x.shape[0], *sizes, features)


@jax.custom_vjp
def max_pool(x: Images) -> Float[Array, "N H_ W_ C"]:
    """Maxima of 3 x 3 pixels around every second one; borders count as -inf.

    Equal maxima of a window share its gradient.
    """
    return nn.max_pool(x, (3, 3), (2, 2), "SAME")


def _max_pool_forward(x):
    return max_pool(x), x


def _max_pool_backward(x, gradient):
    dx, _ = jax.lax.platform_dependent(
        x,
        (),
        gradient,
        cpu=partial(_in_chunks, _by_maxima, prod(x.shape[1:])),
        default=partial(_at_once, _by_maxima),
    )
    return (dx,)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _by_maxima(x: Images, _):
    """`max_pool` along one axis after the other, from whole rows and columns."""
    for axis in (1, 2):
        num_windows = (x.shape[axis] + 1) // 2
        before = x.shape[axis] % 2
        sides = [(0, 0)] * 4
        sides[axis] = (before, 1)
        padded = jnp.pad(x, sides, constant_values=-jnp.inf)
        first, second, third = (
            jax.lax.slice_in_dim(padded, i, i + 2 * num_windows - 1, 2, axis)
            for i in range(3)
        )
        x = jnp.maximum(jnp.maximum(first, second), third)
    return x


def _at_once(function: Callable, x: Images, params: PyTree, gradient: Array):
    """Gradients of function(x, params)."""
    return jax.vjp(function, x, params)[1](gradient)


def _in_chunks(
    function: Callable, size: int, x: Images, params: PyTree, gradient: Array
):
    """As `_at_once`, by as many images at a time as stay in the cache.

    Images do not depend on each other, and `size` numbers are computed for each.
    """
    num_images = x.shape[0]
    most = max(1, min(num_images, _CHUNK // size))
    length = max(i for i in range(1, most + 1) if num_images % i == 0)

    def split(rows):
        return rows.reshape(-1, length, *rows.shape[1:])

    dx, parts = jax.lax.map(
        lambda chunk: _at_once(function, chunk[0], params, chunk[1]),
        (split(x), split(gradient)),
    )
    return dx.reshape(x.shape), jax.tree.map(lambda part: part.sum(axis=0), parts)
