"""A mixture of Gaussians of all transitions: the prior of each step's regression.

Where dynamics are alike, those of other steps and initial states tell of them. Points
are those of all instances along an axis, each of which has a share.

Source: Levine and Abbeel (2014), NIPS, section 5.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from jaxrl_par.algorithms.gps.regression import Prior
from jaxrl_par.axis import Axis

_RIDGE, _LEAST = 1e-4, 1e-10
"""A share of variances that a density adds to them, and what it adds besides: points
may lie in a plane, as those of dynamics without noise do."""
_FEWEST = 1.0
"""Points below which a cluster stays as it is."""


class Mixture(NamedTuple):
    """K clusters."""

    weights: Float[Array, " K"]
    means: Float[Array, "K W"]
    covariances: Float[Array, "K W W"]


def spread_over_time(
    points: Float[Array, "M T W"], num_clusters: int, axis: Axis
) -> Mixture:
    """A first mixture: each cluster has the points of a part of the time."""
    length = points.shape[1]
    part = jnp.arange(length) * num_clusters // length
    shares = jax.nn.one_hot(part, num_clusters, dtype=points.dtype)
    shares = jnp.broadcast_to(shares[None], (*points.shape[:2], num_clusters))
    size = points.shape[-1]
    flat = points.reshape(-1, size)
    empty = Mixture(
        jnp.full(num_clusters, 1.0 / num_clusters, points.dtype),
        jnp.zeros((num_clusters, size)),
        jnp.broadcast_to(jnp.eye(size)[None], (num_clusters, size, size)),
    )
    return _maximised(empty, flat, shares.reshape(-1, num_clusters), axis)


def improved(
    mixture: Mixture, points: Float[Array, "M W"], num_steps: int, axis: Axis
) -> Mixture:
    """The mixture after so many steps of expectation and maximisation."""

    def step(_, mixture: Mixture) -> Mixture:
        return _maximised(mixture, points, memberships(mixture, points), axis)

    return jax.lax.fori_loop(0, num_steps, step, mixture)


def memberships(mixture: Mixture, points: Float[Array, "M W"]) -> Float[Array, "M K"]:
    """The probability of each cluster, for each point."""

    def log_density(mean, covariance):
        wider = _RIDGE * jnp.diagonal(covariance) + _LEAST
        factor = jnp.linalg.cholesky(covariance + jnp.diag(wider))
        white = solve_triangular(factor, (points - mean[None]).T, lower=True)
        logs = jnp.log(jnp.diagonal(factor))
        return -0.5 * jnp.sum(jnp.square(white), axis=0) - jnp.sum(logs)

    logs = jax.vmap(log_density)(mixture.means, mixture.covariances)
    weights = jnp.log(jnp.maximum(mixture.weights, 1e-20))
    return jax.nn.softmax(logs + weights[:, None], axis=0).T


def prior_at(mixture: Mixture, points: Float[Array, "N W"]) -> Prior:
    """Mean and covariance of the clusters to which the points belong."""
    shares = jnp.mean(memberships(mixture, points), axis=0)
    mean = shares @ mixture.means
    apart = mixture.means - mean[None]
    between = jnp.einsum("k,kv,kw->vw", shares, apart, apart)
    within = jnp.einsum("k,kvw->vw", shares, mixture.covariances)
    return Prior(mean, within + between)


def _maximised(
    mixture: Mixture,
    points: Float[Array, "M W"],
    shares: Float[Array, "M K"],
    axis: Axis,
) -> Mixture:
    count, totals = axis.sum((jnp.sum(shares, axis=0), shares.T @ points))
    safe = jnp.maximum(count, _FEWEST)
    means = totals / safe[:, None]
    # Around the new means: of a mean of squares few digits would be left.
    apart = points[None] - means[:, None]
    weighed = apart * shares.T[:, :, None]
    squares = axis.sum(jnp.einsum("kmv,kmw->kvw", weighed, apart))
    covariances = squares / safe[:, None, None]
    few = count < _FEWEST
    return Mixture(
        count / jnp.sum(count),
        jnp.where(few[:, None], mixture.means, means),
        jnp.where(few[:, None, None], mixture.covariances, covariances),
    )
