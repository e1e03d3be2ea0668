"""Small matrices, written out element by element, whose axes are the first two.

Behind these any number of others may lie, over which all is the same: a batch. Where it
lies last, neighbours in memory are of different matrices, and every operation is one of
vectors.

States and actions have few dimensions. For such matrices a call of LAPACK, or a product
for each of a batch, takes longer than its arithmetic, and within a scan, over many
initial states, there are some in each step. Written out, XLA fuses them over the batch.
What is factored makes the program grow with the third power of its size: see `LARGEST`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LARGEST = 8
"""Rows up to which this is sensible."""
_FLOOR = 1e-6
"""Smallest pivot, as a share of the largest diagonal element, of a positive one."""


def times(left: Float[Array, "M K"], right: Float[Array, "K *N"]) -> Array:
    """left @ right; a vector has no batch."""
    if right.ndim == 1:
        return sum((left[:, k] * right[k] for k in range(len(right))), jnp.zeros(()))
    parts = (left[:, k, None] * right[k][None] for k in range(len(right)))
    return sum(parts, jnp.zeros(()))


def transposed_times(
    left: Float[Array, "K M *J"],
    right: tuple[Float[Array, "K N *J"], Float[Array, "K *J"]],
    start: tuple[Float[Array, "M N *J"], Float[Array, "M *J"]],
) -> tuple[Float[Array, "M N *J"], Float[Array, "M *J"]]:
    """start + left^T right, for a matrix and a vector.

    The sum is a loop, so that a product of this product reads it from memory. XLA would
    compute a sum that is written out once more for each element that reads it.
    """

    def add(k: int | Array, total: Any) -> Any:
        (matrix, vector), factor = total, left[k]
        matrix = matrix + factor[:, None] * right[0][k][None]
        return matrix, vector + factor * right[1][k]

    # The first summand is where the loop begins: nothing is copied for it.
    return jax.lax.fori_loop(1, len(left), add, add(0, tuple(start)))


class Definite(NamedTuple):
    """A positive definite matrix, by its factor."""

    factor: Float[Array, "A A *J"]
    """Lower, of the matrix itself or of one that is larger on its diagonal."""
    is_own: Bool[Array, "*J"]
    """Whether it is of the matrix itself, which then is positive definite."""

    @property
    def matrix(self) -> Float[Array, "A A *J"]:
        """The one that was factored."""
        upper = self.factor.swapaxes(0, 1)
        return jnp.sum(upper[:, :, None] * upper[:, None], axis=0)

    def solve(self, right: Float[Array, "A *N"]) -> Float[Array, "A *N"]:
        """matrix^-1 right, where right has the axes of the batch behind its own."""
        size, low = len(self.factor), self.factor
        # One division for each row, however many columns there are.
        scale = [1.0 / low[i, i] for i in range(size)]
        forward: list[Array] = []
        for i in range(size):
            done = sum(low[i, k] * forward[k] for k in range(i))
            forward.append((right[i] - done) * scale[i])
        solved: list[Array] = [forward[0]] * size
        for i in reversed(range(size)):
            done = sum(low[k, i] * solved[k] for k in range(i + 1, size))
            solved[i] = (forward[i] - done) * scale[i]
        return jnp.stack(solved)

    def inverse(self) -> Float[Array, "A A *J"]:
        """Symmetric in every bit."""
        inverse = self.solve(
            jnp.broadcast_to(diagonal_ones(self.factor), self.factor.shape)
        )
        return 0.5 * (inverse + inverse.swapaxes(0, 1))

    def log_determinant(self) -> Float[Array, "*J"]:
        """That of the matrix."""
        return 2.0 * jnp.sum(jnp.log(_diagonal(self.factor)), axis=0)


def definite(matrix: Float[Array, "A A *J"]) -> Definite:
    """The matrix if it is positive definite, else with as much added to its diagonal as
    makes it so: never is an indefinite one inverted.

    What is added comes from Gershgorin's bounds of the eigenvalues: no eigenvalue is
    then below the largest that there was, so that nothing is divided by little. A
    matrix that is not finite is none, and gives no finite factor.
    """
    largest = jnp.max(jnp.sum(jnp.abs(matrix), axis=1), axis=0)
    shifted = no_smaller(matrix, jnp.where(largest > 0.0, largest, 1.0))
    factor, own = _cholesky(jnp.stack([matrix, shifted], axis=2))
    return Definite(jnp.where(own[0], factor[:, :, 0], factor[:, :, 1]), own[0])


def no_smaller(
    matrix: Float[Array, "A A *J"], eigenvalue: Float[Array, "*J"] | float
) -> Float[Array, "A A *J"]:
    """The matrix with so much added to its diagonal that, by Gershgorin's bound, no
    eigenvalue is below that one."""
    diagonal = _diagonal(matrix)
    around = jnp.sum(jnp.abs(matrix), axis=1) - jnp.abs(diagonal)
    lacking = jnp.maximum(0.0, eigenvalue - jnp.min(diagonal - around, axis=0))
    return matrix + lacking * diagonal_ones(matrix)


def _cholesky(matrix: Float[Array, "A A *J"]) -> tuple[Array, Bool[Array, "*J"]]:
    """(lower factor, whether all pivots are positive)"""
    size = len(matrix)
    floor = _FLOOR * jnp.max(jnp.abs(_diagonal(matrix)), axis=0)
    zero = jnp.zeros(matrix.shape[2:], matrix.dtype)
    rows = [[zero] * size for _ in range(size)]
    own = jnp.ones(matrix.shape[2:], bool)
    for j in range(size):
        pivot = matrix[j, j] - sum(rows[j][k] ** 2 for k in range(j))
        own = own & (pivot > floor)
        rows[j][j] = jnp.sqrt(jnp.maximum(pivot, jnp.finfo(matrix.dtype).tiny))
        for i in range(j + 1, size):
            done = sum(rows[i][k] * rows[j][k] for k in range(j))
            rows[i][j] = (matrix[i, j] - done) / rows[j][j]
    return jnp.stack([jnp.stack(row) for row in rows]), own


def _diagonal(matrix: Float[Array, "A A *J"]) -> Float[Array, "A *J"]:
    return jnp.stack([matrix[i, i] for i in range(len(matrix))])


def diagonal_ones(like: Float[Array, "A A *J"]) -> Float[Array, "A A ..."]:
    """Ones on the diagonal, to be broadcast over the batch."""
    eye = jnp.eye(len(like), dtype=like.dtype)
    return eye.reshape(*eye.shape, *[1] * (like.ndim - 2))
