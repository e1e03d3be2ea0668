"""Values of all actions, from the entries that are nearest to a key.

An action without entries is worth 0, and one with fewer than k has them all.

Sources: Blundell et al., arXiv:1606.04460, equation 2; Pritzel et al.,
arXiv:1703.01988, equations 1 to 3 and 5.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.algorithms.episodic.table import Found, Table


def averages(
    table: Table, queries: Float[Array, "Q D"], found: Found
) -> Float[Array, "Q C"]:
    """The value of an equal key, or else the mean of the nearest: MFEC."""
    values = found.of(table.values)
    equal = jnp.all(found.of(table.keys) == queries[:, None, None], axis=-1)
    equal &= found.there
    number = jnp.maximum(jnp.sum(found.there, axis=-1), 1).astype(values.dtype)
    mean = jnp.sum(jnp.where(found.there, values, 0.0), axis=-1) / number
    exact = jnp.max(jnp.where(equal, values, -jnp.inf), axis=-1)
    return jnp.where(jnp.any(equal, axis=-1), exact, mean)


def weighted(
    keys: Float[Array, "A N D"],
    values: Float[Array, "A N"],
    queries: Float[Array, "Q D"],
    found: Found,
    delta: Float[Array, ""] | float,
) -> Float[Array, "Q C"]:
    """The mean of the nearest, weighted by an inverse distance kernel: NEC.

        Q = sum_i w[i] Q[i],   w[i] = k[i] / sum_j k[j]
        k[i] = 1 / (|h - h[i]|^2 + delta)

    Gradients flow into the queries, the keys and the values.
    """
    shares = weights(keys, queries, found, delta)
    return jnp.sum(shares * found.of(values), axis=-1)


def weights(
    keys: Float[Array, "A N D"],
    queries: Float[Array, "Q D"],
    found: Found,
    delta: Float[Array, ""] | float,
) -> Float[Array, "Q C k"]:
    """w[i] of `weighted`; 0 where there is no entry."""
    near = found.of(keys)
    squared = jnp.sum((queries[:, None, None] - near) ** 2, axis=-1)
    kernel = jnp.where(found.there, 1.0 / (squared + delta), 0.0)
    total = jnp.sum(kernel, axis=-1, keepdims=True)
    return kernel / jnp.where(total > 0.0, total, 1.0)
