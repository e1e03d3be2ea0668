"""Costs as quadratics around what was done."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.algorithms.gps.lqr import Quadratic

CostFn = Callable[[Any, Array, Array], Float[Array, ""]]
"""(scene, state [D], action [A]) -> what the action costs there"""


def at_points(
    cost: CostFn, scene: Any, points: Float[Array, "T Z"], size: int
) -> Quadratic:
    """The second-order Taylor polynomial around one point of each step, in absolute
    coordinates.

    Args:
      size: D, of the state.
    """

    def of(point: Float[Array, " Z"]) -> Float[Array, ""]:
        return cost(scene, point[:size], point[size:])

    def one(point: Float[Array, " Z"]) -> Quadratic:
        hessian = jax.hessian(of)(point)
        hessian = 0.5 * (hessian + hessian.T)
        return Quadratic(hessian, jax.grad(of)(point) - hessian @ point)

    return jax.vmap(one)(points)


def around(cost: CostFn, scene: Any, points: Float[Array, "N T Z"], size: int):
    """The mean of the polynomials around all samples of each step."""
    of_samples = jax.vmap(lambda x: at_points(cost, scene, x, size))(points)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), of_samples)
