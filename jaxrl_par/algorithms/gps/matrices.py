"""Small matrices, written out element by element.

States and actions have few dimensions. For such matrices a call of LAPACK, or a product
for each of a batch, takes longer than its arithmetic, and within a scan, over many
initial states, there are some in each step. Written out, XLA fuses them over the batch:
a backward pass is then three times as fast on CPU. What is factored makes the program
grow with the third power of its size: see `LARGEST`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LARGEST = 8
"""Rows up to which this is sensible."""
_FLOOR = 1e-6
"""Smallest pivot, as a share of the largest diagonal element, of a positive one."""


def times(left: Float[Array, "M K"], right: Float[Array, "K *N"]) -> Array:
    """left @ right"""
    if right.ndim == 1:
        return sum((left[:, k] * right[k] for k in range(len(right))), jnp.zeros(()))
    parts = (left[:, k, None] * right[k][None] for k in range(len(right)))
    return sum(parts, jnp.zeros(()))


class Definite(NamedTuple):
    """A positive definite matrix, by its factor."""

    factor: Float[Array, "A A"]
    """Lower, of the matrix itself or of one that is larger on its diagonal."""
    is_own: Bool[Array, ""]
    """Whether it is of the matrix itself, which then is positive definite."""

    @property
    def matrix(self) -> Float[Array, "A A"]:
        """The one that was factored."""
        return times(self.factor, self.factor.T)

    def solve(self, right: Float[Array, "A *N"]) -> Float[Array, "A *N"]:
        """matrix^-1 right"""
        size, low = len(self.factor), self.factor
        forward: list[Array] = []
        for i in range(size):
            done = sum(low[i, k] * forward[k] for k in range(i))
            forward.append((right[i] - done) / low[i, i])
        solved: list[Array] = [forward[0]] * size
        for i in reversed(range(size)):
            done = sum(low[k, i] * solved[k] for k in range(i + 1, size))
            solved[i] = (forward[i] - done) / low[i, i]
        return jnp.stack(solved)

    def inverse(self) -> Float[Array, "A A"]:
        """Symmetric in every bit."""
        inverse = self.solve(jnp.eye(len(self.factor)))
        return 0.5 * (inverse + inverse.T)

    def log_determinant(self) -> Float[Array, ""]:
        """That of the matrix."""
        return 2.0 * jnp.sum(jnp.log(jnp.diagonal(self.factor)))


def definite(matrix: Float[Array, "A A"]) -> Definite:
    """The matrix if it is positive definite, else with as much added to its diagonal as
    makes it so: never is an indefinite one inverted.

    What is added comes from Gershgorin's bounds of the eigenvalues: no eigenvalue is
    then below the largest that there was, so that nothing is divided by little. A
    matrix that is not finite is none, and gives no finite factor.
    """
    factor, own = _cholesky(matrix)
    largest = jnp.max(jnp.sum(jnp.abs(matrix), axis=1))
    shifted, _ = _cholesky(no_smaller(matrix, jnp.where(largest > 0.0, largest, 1.0)))
    return Definite(jnp.where(own, factor, shifted), own)


def no_smaller(
    matrix: Float[Array, "A A"], eigenvalue: Float[Array, ""] | float
) -> Float[Array, "A A"]:
    """The matrix with so much added to its diagonal that, by Gershgorin's bound, no
    eigenvalue is below that one."""
    diagonal = jnp.diagonal(matrix)
    around = jnp.sum(jnp.abs(matrix), axis=1) - jnp.abs(diagonal)
    lacking = jnp.maximum(0.0, eigenvalue - jnp.min(diagonal - around))
    return matrix + lacking * jnp.eye(len(matrix), dtype=matrix.dtype)


def _cholesky(matrix: Float[Array, "A A"]) -> tuple[Array, Bool[Array, ""]]:
    """(lower factor, whether all pivots are positive)"""
    size = len(matrix)
    floor = _FLOOR * jnp.max(jnp.abs(jnp.diagonal(matrix)))
    zero = jnp.zeros((), matrix.dtype)
    rows = [[zero] * size for _ in range(size)]
    own = jnp.bool_(True)
    for j in range(size):
        pivot = matrix[j, j] - sum(rows[j][k] ** 2 for k in range(j))
        own = own & (pivot > floor)
        rows[j][j] = jnp.sqrt(jnp.maximum(pivot, jnp.finfo(matrix.dtype).tiny))
        for i in range(j + 1, size):
            done = sum(rows[i][k] * rows[j][k] for k in range(j))
            rows[i][j] = (matrix[i, j] - done) / rows[j][j]
    return jnp.stack([jnp.stack(row) for row in rows]), own
