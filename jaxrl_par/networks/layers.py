"""Layers that work on features first: x is [D, N], a column for each row of data.

Weight gradients contract over the N rows. With rows last, these products, and those of
the forward and backward pass, all read memory in order; with rows first, XLA's CPU
backend needs 1.6 times as long for the gradient of an MLP (two layers of 64 units, 4096
rows). Sums of biases' gradients, and slices of gates, are contiguous as well.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.types import PRNGKey

Activation = Callable[[Array], Array]


def orthogonal(scale: float) -> Callable[..., Array]:
    """Initialiser of matrices [in, out] with orthonormal rows or columns, times `scale`.

    The polar factor of a Gaussian matrix, which is uniformly distributed, by Newton and
    Schulz's iteration. Only products of matrices: vmapped QR decompositions, which the
    usual initialiser uses, may deadlock jaxlib on CPU.

    Source: Saxe et al., arXiv:1312.6120; Higham, Functions of Matrices, section 8.3.
    """

    def init(key: PRNGKey, shape: Sequence[int], dtype=jnp.float32) -> Array:
        rows, columns = shape
        x = jax.random.normal(key, (max(rows, columns), min(rows, columns)))
        x = x / jnp.linalg.norm(x)

        def improve(_, x):
            return 1.5 * x - 0.5 * x @ (x.T @ x)

        # Singular values grow by 3/2 in each step until they reach 1: from the 1e-5
        # that a Gaussian matrix of 512 columns has, after 30 steps.
        x = jax.lax.fori_loop(0, 40, improve, x)
        return (scale * (x if rows >= columns else x.T)).astype(dtype)

    return init


class Linear(nn.Module):
    """[D, N] -> [features, N]."""

    features: int
    scale: float = 2.0**0.5
    """Of the orthogonal kernel; the bias starts at 0."""
    dtype: jnp.dtype = jnp.float32
    """Of the computation; parameters are float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "D N"]) -> Float[Array, "F N"]:
        kernel = self.param("kernel", orthogonal(self.scale), (x.shape[0], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel, x = kernel.astype(self.dtype), x.astype(self.dtype)
        return kernel.T @ x + bias.astype(self.dtype)[:, None]


class MLP(nn.Module):
    """Linear layers, each followed by the activation."""

    widths: Sequence[int]
    activation: Activation
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "D N"]) -> Float[Array, "F N"]:
        for width in self.widths:
            x = self.activation(Linear(width, dtype=self.dtype)(x))
        return x


class PatchConv(nn.Module):
    """A convolution without padding as one matmul on patches.

    Images are [H, W, C, N], rows of data last as everywhere here. For the small images
    of MinAtar this is about six times faster on CPU, inside a scan, than the gradient
    of `lax.conv`. The result is [features, H', W', N] as a matrix, [features H' W', N].
    """

    features: int
    window: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "H W C N"]) -> Float[Array, "F N"]:
        height, width = (size - self.window + 1 for size in x.shape[:2])
        channels, num_rows = x.shape[2:]
        if min(height, width) < 1:
            raise ValueError(
                f"images of {x.shape[0]} x {x.shape[1]} are smaller than the window"
                f" of {self.window}"
            )
        offsets = [(i, j) for i in range(self.window) for j in range(self.window)]
        patches = [x[i : i + height, j : j + width] for i, j in offsets]
        # [window**2, C, H', W', N], so that contraction is over the leading rows.
        patches = jnp.stack(patches).transpose(0, 3, 1, 2, 4)
        patches = patches.reshape(len(offsets) * channels, height * width * num_rows)
        y = Linear(self.features, dtype=self.dtype)(patches)
        return y.reshape(self.features * height * width, num_rows)
