"""How far one controller is from another, and the cost of being so."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.algorithms.gps.lqr import Moments, Quadratic
from jaxrl_par.algorithms.gps.matrices import definite, times
from jaxrl_par.guidance import Controllers


def divergences(
    new: Controllers, old: Controllers, moments: Moments
) -> Float[Array, " T"]:
    """E KL(new(.|x) || old(.|x)) in every step, of states as `moments` has them."""
    size = new.gain.shape[-1]

    def one(new, old, mean, covariance):
        precise = definite(old.covariance)
        gain, offset = new.gain - old.gain, new.offset - old.offset
        apart = times(gain, mean[:size]) + offset
        second = times(times(gain, covariance[:size, :size]), gain.T)
        second = second + apart[:, None] * apart[None]
        inner = precise.solve(new.covariance + second)
        ratio = precise.log_determinant() - definite(new.covariance).log_determinant()
        return 0.5 * (jnp.trace(inner) - len(apart) + ratio)

    return jax.vmap(one)(new, old, *moments)


def surprise(old: Controllers) -> Quadratic:
    """-log old(u|x), as a cost up to a constant."""

    def one(gain, offset, covariance):
        precision = definite(covariance).inverse()
        error = jnp.concatenate([-gain, jnp.eye(len(offset))], axis=1)
        weighed = times(error.T, precision)
        return Quadratic(times(weighed, error), -times(weighed, offset))

    return jax.vmap(one)(*old)
