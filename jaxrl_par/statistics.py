"""Statistics of data that several devices share, as if one device had all of it.

Instances along the axis have arrays of the same shapes. Counts are per instance, so
that they stay small where there are many.

Source of `merged`: Chan, Golub and LeVeque (1979), as in Welford's method.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, UInt32

from jaxrl_par.axis import Axis

SMALLEST_COUNT = 1e-9
"""Below any mean count above 0: 1 on one of the instances, however many these are."""


class Moments(NamedTuple):
    """Count, mean and variance of rows, the latter with leaves as one row."""

    count: Float[Array, ""]
    mean: PyTree
    variance: PyTree


def moments(rows: PyTree, keep: Bool[Array, "*N"], axis: Axis) -> Moments:
    """Moments of the rows to keep, leaves [*N, ...], of all instances, in float32."""
    rows = jax.tree.map(lambda x: x.astype(jnp.float32), rows)

    def total(x: Array) -> Array:
        kept = keep.reshape(*keep.shape, *[1] * (x.ndim - keep.ndim))
        return jnp.sum(jnp.where(kept, x, 0.0), axis=range(keep.ndim))

    number = jnp.sum(keep, dtype=jnp.float32)
    count, totals = axis.mean((number, jax.tree.map(total, rows)))
    safe = jnp.maximum(count, SMALLEST_COUNT)
    means = jax.tree.map(lambda x: x / safe, totals)
    # Around the mean: a mean of squares less a squared mean would lose the digits.
    centred = jax.tree.map(lambda x, m: x - jnp.broadcast_to(m, x.shape), rows, means)
    squares = jax.tree.map(lambda x: total(jnp.square(x)), centred)
    # A mean is rounded, and equal numbers would all deviate from it by the same.
    offsets, squares = axis.mean((jax.tree.map(total, centred), squares))
    offsets, squares = (jax.tree.map(lambda x: x / safe, y) for y in (offsets, squares))
    means = jax.tree.map(jnp.add, means, offsets)
    variances = jax.tree.map(
        lambda x, y: jnp.maximum(x - jnp.square(y), 0.0), squares, offsets
    )
    return Moments(count, means, variances)


def merged(old: Moments, new: Moments) -> Moments:
    """Moments of the rows of both; the old ones where the new are not finite.

    Large numbers are finite, but their squares or the sum of these may not be.
    """
    leaves = jax.tree.leaves(new)
    usable = jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]).all()
    count = old.count + new.count
    share = new.count / jnp.maximum(count, SMALLEST_COUNT)

    def variance(old_mean, old_variance, new_mean, new_variance):
        within = (1.0 - share) * old_variance + share * new_variance
        return within + share * (1.0 - share) * jnp.square(new_mean - old_mean)

    means = jax.tree.map(lambda x, y: x + share * (y - x), old.mean, new.mean)
    variances = jax.tree.map(variance, old.mean, old.variance, new.mean, new.variance)
    both = Moments(count, means, variances)
    return jax.tree.map(lambda x, y: jnp.where(usable, x, y), both, old)


def scales(of: Moments) -> PyTree:
    """Standard deviations to divide by: 1 where a leaf's element never changed.

    The deviation of equal numbers is no more than their rounding. Divided by that, the
    first other number would be huge.
    """

    def scale(mean: Array, variance: Array) -> Array:
        deviation = jnp.sqrt(variance)
        rounding = 32 * jnp.finfo(jnp.float32).eps * jnp.abs(mean)
        changes = (of.count > 0) & (deviation > rounding)
        return jnp.where(changes, deviation, 1.0)

    return jax.tree.map(scale, of.mean, of.variance)


def standardized(
    x: Float[Array, "*N"], keep: Bool[Array, "*N"], axis: Axis
) -> Float[Array, "*N"]:
    """To mean 0 and standard deviation 1 over what is kept; all else is 0."""
    _, mean, variance = moments(x, keep, axis)
    return jnp.where(keep, (x - mean) * jax.lax.rsqrt(variance + 1e-8), 0.0)


def reached(
    x: Float[Array, "*N"],
    keep: Bool[Array, "*N"],
    counts: Float[Array, " K"],
    axis: Axis,
) -> Float[Array, " K"]:
    """For each of `counts`, the largest number that so many of x, where `keep`, reach.

    x are those of all instances, and counts are per instance. A search for the four
    highest bits of the answer, then the next four, needs no more than means over the
    instances, and is exact.
    """
    bits = jax.lax.bitcast_convert_type(x.ravel().astype(jnp.float32), jnp.uint32)
    # In the order of x, which that of its bits is not for negative numbers.
    sign = jnp.uint32(1 << 31)
    ordered = jnp.where(bits >= sign, ~bits, bits | sign)
    digits = jnp.arange(1, 16, dtype=jnp.uint32)

    def refine(i: Array, found: UInt32[Array, " K"]) -> UInt32[Array, " K"]:
        shift = jnp.uint32(28 - 4 * i)
        candidates = found[:, None] | (digits << shift)[None]
        reach = keep.ravel()[None, None] & (
            ordered[None, None] >= candidates[..., None]
        )
        number = axis.mean(jnp.sum(reach, axis=-1, dtype=jnp.float32))
        enough = number >= counts[:, None]
        return found | (jnp.sum(enough, axis=1, dtype=jnp.uint32) << shift)

    found = jax.lax.fori_loop(0, 8, refine, jnp.zeros(counts.shape, jnp.uint32))
    bits = jnp.where(found >= sign, found ^ sign, ~found)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
