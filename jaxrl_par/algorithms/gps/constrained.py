"""The step of a controller: the least cost within a trust region, by its dual.

    min_p E_p[l]   so that   sum_t E KL(p(.|x_t) || q(.|x_t)) <= bound

For a multiplier eta the minimum is that of l - eta log q - eta entropy, a backward pass
whose covariance is eta Q_uu^-1. The divergence falls as eta grows, so that bisection of
log eta finds the smallest one within the bound; an eta whose Q_uu are not all positive
definite counts as outside. Where none is within, the controller stays.

Sources: Levine and Abbeel (2014), NIPS, section 4; Montgomery and Levine,
arXiv:1607.04614, algorithm 1.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.algorithms.gps.divergence import divergences, surprise
from jaxrl_par.algorithms.gps.lqr import Dynamics, Quadratic, backward, moments
from jaxrl_par.guidance import Controllers
from jaxrl_par.measured import Metric

METRICS = {
    "kl_step": Metric(
        "nats", "of new local controllers from those that acted, whole episodes"
    ),
    "kl_bound": Metric("nats", "the largest that this may be"),
    "log_eta": Metric("1", "logarithm of the multiplier that holds the bound"),
    "indefinite": Metric(
        "steps", "whose Q_uu was not positive definite, and was shifted; a sum"
    ),
    "stayed": Metric(
        "initial states", "whose controllers found no step, and stayed; a sum"
    ),
}

_LOWEST, _HIGHEST = 1e-8, 1e16
_NUM_HALVINGS = 30
_LEAST_ERROR = 1e-4
"""Of a prediction, as what one is divided by that was exceeded."""


class Pull(NamedTuple):
    """A second controller, to which one is drawn without a bound."""

    towards: Controllers
    weight: Float[Array, " T"]
    """Of the divergence from it, in every step."""


class Constrained(NamedTuple):
    """A controller within its bound."""

    controllers: Controllers
    divergences: Float[Array, " T"]
    eta: Float[Array, ""]
    moved: Bool[Array, ""]
    """False where no multiplier gave a finite controller within the bound."""
    indefinite: Int[Array, ""]
    """Q_uu that were not positive definite, of all multipliers that were tried."""


def constrained(
    cost: Quadratic,
    dynamics: Dynamics,
    old: Controllers,
    start: tuple[Float[Array, " D"], Float[Array, "D D"]],
    bound: Float[Array, ""] | float,
    pull: Pull | None = None,
) -> Constrained:
    """The controller of least cost, no farther than `bound` from the old one.

    Args:
      start: mean and covariance of the first state.
      bound: of the sum over all steps, in nats.
      pull: its divergences are a part of the cost.
    """
    if pull is not None:
        cost = cost.plus(surprise(pull.towards), pull.weight)
    stay, others = surprise(old), 0.0 if pull is None else pull.weight

    def tried(eta: Array) -> tuple[Controllers, Array, Bool[Array, ""], Array]:
        found = backward(cost.plus(stay, eta), dynamics)
        weight = jnp.broadcast_to(eta + others, old.offset.shape[:1])
        # Less a weight, less noise: what is maximised is the entropy, so many times.
        noise = weight[:, None, None] * found.controllers.covariance
        new = found.controllers._replace(covariance=noise)
        apart = divergences(new, old, moments(new, dynamics, *start))
        within = (jnp.sum(apart) <= bound) & (found.indefinite == 0)
        return new, apart, within & _finite(new), found.indefinite

    def halve(_, now):
        low, high, best = now
        middle = 0.5 * (low + high)
        new, apart, within, indefinite = tried(jnp.exp(middle))
        low, high = jnp.where(within, low, middle), jnp.where(within, middle, high)
        # What was accepted is kept: computed again elsewhere, its divergence may be
        # rounded to the other side of the bound.
        count = best.indefinite + indefinite
        found = Constrained(new, apart, jnp.exp(middle), within, count)
        kept = jax.tree.map(partial(jnp.where, within), found, best)
        return low, high, kept._replace(indefinite=count)

    none = jnp.zeros(old.offset.shape[:1])
    stays = Constrained(
        old, none, jnp.float32(_HIGHEST), jnp.bool_(False), jnp.int32(0)
    )
    ends = jnp.float32(math.log(_LOWEST)), jnp.float32(math.log(_HIGHEST))
    *_, best = jax.lax.fori_loop(0, _NUM_HALVINGS, halve, (*ends, stays))
    return best


def growth(
    predicted: Float[Array, "*J"], actual: Float[Array, "*J"]
) -> Float[Array, "*J"]:
    """By how much the bound of the next step grows, from .1 to 10.

        predicted / (2 (predicted - actual))

    Who falls short of the prediction by half of it keeps the bound. Who reaches or
    exceeds it has the largest growth, where the ratio alone would be negative.

    Args:
      predicted, actual: by how much the cost fell.
    """
    error = jnp.maximum(predicted - actual, _LEAST_ERROR)
    return jnp.clip(predicted / (2.0 * error), 0.1, 10.0)


def _finite(controllers: Controllers) -> Bool[Array, ""]:
    return jnp.stack([jnp.all(jnp.isfinite(x)) for x in controllers]).all()
