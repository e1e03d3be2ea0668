"""Keys of observations: random projections, in which distances are nearly kept.

An observation has the same key whoever computes it, in a batch of any size: an entry is
found again by equality. So factors are multiples of 1/64, and with whole numbers, such
as pixels, sums have no rounding that could depend on their order. Numbers with
fractions may differ in their last bits; then the entry is the nearest, and not equal.

Source: Blundell et al., arXiv:1606.04460, section 3.2.
"""

from math import prod

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.masks import unmasked
from jaxrl_par.types import (
    Discrete,
    Obs,
    PRNGKey,
    Spec,
    Specs,
)

Projection = Float[Array, "F D"] | None
"""None: the observation is the key."""


def projection(key: PRNGKey, specs: Specs, width: int) -> Projection:
    """To keys of so many numbers. Observations of no more are keys as they are."""
    number = num_numbers(specs)
    if number <= width:
        return None
    factors = jax.random.normal(key, (number, width))
    return jnp.round(64.0 * factors) / 64.0


def key_width(specs: Specs, width: int) -> int:
    """Numbers of a key."""
    return min(num_numbers(specs), width)


def projected(factors: Projection, specs: Specs, obs: Obs) -> Float[Array, "*B D"]:
    """Keys of observations."""
    leaves = zip(_leaves(specs), jax.tree.leaves(unmasked(obs)), strict=True)
    flat = jnp.concatenate([_numbers(spec, x) for spec, x in leaves], axis=-1)
    if factors is None:
        return flat
    return jnp.matmul(flat, factors, precision=jax.lax.Precision.HIGHEST)


def num_numbers(specs: Specs) -> int:
    """Numbers of an observation, of which a choice of n has n."""
    return sum(
        x.num_values if isinstance(x, Discrete) else prod(x.shape)
        for x in _leaves(specs)
    )


def _numbers(spec: Spec, x: Array) -> Float[Array, "*B F"]:
    if isinstance(spec, Discrete):
        return jax.nn.one_hot(x, spec.num_values, dtype=jnp.float32)
    batch = x.ndim - len(spec.shape)
    return x.reshape(*x.shape[:batch], -1).astype(jnp.float32)


def _leaves(specs: Specs) -> list[Spec]:
    """Without masks, which say nothing of where one is."""
    return jax.tree.leaves(unmasked(specs), is_leaf=lambda x: isinstance(x, Spec))
