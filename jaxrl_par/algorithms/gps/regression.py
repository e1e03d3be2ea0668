"""Linear-Gaussian models fitted to few samples, with a prior of all that was seen.

Samples w = (z, y) of a step are taken to be normal. Their mean and covariance have a
normal-inverse-Wishart prior, as if `strength` more of them had been seen whose mean and
covariance are the prior's. What y is, given z, follows:

    F = S_yz S_zz^-1      f = mean_y - F mean_z      covariance = S_yy - F S_zy

Fewer samples than z has dimensions determine no F; with the prior they do.

Source: Levine and Abbeel (2014), NIPS, section 5.
"""

from typing import NamedTuple

import jax.numpy as jnp
import jax.scipy.linalg as linalg
from jaxtyping import Array, Float

RIDGE, _LEAST = 1e-6, 1e-10
"""A share of the variances in S_zz that is added to them, and what is added besides:
some of z may never change, or follow from the rest."""


class Prior(NamedTuple):
    """What samples are expected to be."""

    mean: Float[Array, " W"]
    covariance: Float[Array, "W W"]


class Fit(NamedTuple):
    """y = N(matrix z + offset, covariance)"""

    matrix: Float[Array, "Y Z"]
    offset: Float[Array, " Y"]
    covariance: Float[Array, "Y Y"]


def fitted(
    inputs: Float[Array, "N Z"],
    outputs: Float[Array, "N Y"],
    prior: Prior | None = None,
    strength: float = 1.0,
    ridge: float = RIDGE,
) -> Fit:
    """The model of outputs, given inputs.

    Args:
      prior: of both, the inputs first; None: there is none, and at least Z + 1 samples
        must span the inputs.
      strength: so many samples is the prior worth.
    """
    joint = jnp.concatenate([inputs, outputs], axis=1)
    number, size = joint.shape[0], inputs.shape[1]
    mean = jnp.mean(joint, axis=0)
    centred = joint - mean[None]
    scatter = centred.T @ centred
    if prior is not None:
        apart, total = mean - prior.mean, number + strength
        share = number * strength / total
        scatter = scatter + strength * prior.covariance
        scatter = scatter + share * jnp.outer(apart, apart)
        mean, number = mean - strength / total * apart, total
    spread = scatter / number
    own = spread[:size, :size]
    own = own + jnp.diag(ridge * jnp.diagonal(own) + _LEAST)
    matrix = linalg.cho_solve(linalg.cho_factor(own), spread[:size, size:]).T
    left = spread[size:, size:] - matrix @ spread[:size, size:]
    return Fit(matrix, mean[size:] - matrix @ mean[:size], 0.5 * (left + left.T))
