"""Bregman ADMM: multipliers that make controllers and the global policy agree.

On the means of actions, with prices lambda_t for each step and weights nu_t of
divergences, the Lagrangian has lambda^T (E mu_pi - E mu_p). So

    controllers         least cost of l - u^T lambda + nu KL(p || pi), near the old ones
    the global policy   nears K x + k - C lambda / nu, with weight nu and precision C^-1
    lambda_t            + rate nu_t C_t^-1 (E mu_pi - E mu_p)
    nu_t                doubles where the divergence has not shrunk to .95 of what it
                        was, and halves where it has to .8 or less

Source: Levine et al., arXiv:1504.00702, section 4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.algorithms.gps.config import GPSConfig
from jaxrl_par.algorithms.gps.constrained import Pull
from jaxrl_par.algorithms.gps.lqr import Quadratic
from jaxrl_par.algorithms.gps.matrices import definite
from jaxrl_par.guidance import Controllers, Lessons
from jaxrl_par.types import Obs

_SLOW, _FAST = 0.95, 0.8
_LIGHTEST, _HEAVIEST = 1e-6, 1e6


class Duals(NamedTuple):
    """Of J initial states."""

    price: Float[Array, "*J T A"]
    """lambda"""
    weight: Float[Array, "*J T"]
    """nu"""
    apart: Float[Array, "*J"]
    """Divergence between controllers and the global policy, when last looked at."""


def start(shape: tuple[int, int, int], weight: float) -> Duals:
    """Without prices, for [J, T, A]."""
    weights = jnp.full(shape[:2], weight, jnp.float32)
    return Duals(jnp.zeros(shape), weights, jnp.full(shape[0], jnp.inf, jnp.float32))


def priced(
    cost: Quadratic, policy: Controllers, duals: Duals
) -> tuple[Quadratic, Pull]:
    """What controllers pay, of one initial state."""
    size = cost.gradient.shape[1] - duals.price.shape[1]
    prices = jnp.pad(duals.price, ((0, 0), (size, 0)))
    return cost._replace(gradient=cost.gradient - prices), Pull(policy, duals.weight)


def updated(
    duals: Duals,
    new: Controllers,
    policy: Controllers,
    points: Float[Array, "J N T Z"],
    apart: Float[Array, "J T"],
    config: GPSConfig,
) -> Duals:
    """After a step of the controllers, at the states of the rollouts."""
    size = new.gain.shape[-1]
    state = jnp.mean(points[..., :size], axis=1)
    difference = policy.mean(state) - new.mean(state)
    weighed = jax.vmap(jax.vmap(lambda c, x: definite(c).solve(x)))(
        new.covariance, difference
    )
    price = duals.price + config.dual_rate * duals.weight[..., None] * weighed
    total = jnp.sum(apart, axis=1)
    ratio = total / duals.apart
    factor = jnp.where(ratio <= _FAST, 0.5, jnp.where(ratio >= _SLOW, 2.0, 1.0))
    # Of the first look there is nothing to compare with.
    factor = jnp.where(jnp.isinf(duals.apart), 1.0, factor)
    weight = jnp.clip(duals.weight * factor[:, None], _LIGHTEST, _HEAVIEST)
    return Duals(price, weight, total)


def lessons(
    duals: Duals,
    obs: Obs,
    mean: Float[Array, "J N T A"],
    covariance: Float[Array, "J T A A"],
    precision: Float[Array, "J T A A"],
) -> Lessons:
    """What the global policy is to near."""
    shift = jnp.einsum("jtab,jtb->jta", covariance, duals.price)
    shift = shift / duals.weight[..., None]
    return Lessons(obs, mean - shift[:, None], precision, duals.weight)
