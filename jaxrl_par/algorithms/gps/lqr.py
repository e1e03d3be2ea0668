"""Linear dynamics, quadratic costs: the backward pass, and what a controller comes to.

All is of one initial state, to be vmapped over them. Coordinates are absolute: a cost
is 1/2 z^T H z + g^T z of z = (x, u), up to a constant, and x' = F z + f. With
V = 0 after the last step, if no other is given,

    Q_zz = H + F^T V_xx F            Q_z = g + F^T (V_x + V_xx f)
    K = -Q_uu^-1 Q_ux                k = -Q_uu^-1 Q_u
    V_xx = Q_xx + K^T Q_ux + Q_ux^T K + K^T Q_uu K
    V_x = Q_x + K^T Q_u + Q_ux^T k + K^T Q_uu k

The gain may be of a Q_uu with something added; the value is that of the gain, and has
the plain one. Shorter forms of it hold only for the gain of the plain Q_uu.

Sources: Tassa et al. (2012), Synthesis and stabilization of complex behaviors, equation
11, for the value of a regularised gain; Levine and Abbeel (2014), NIPS, section 3, for
the covariance Q_uu^-1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl_par.algorithms.gps.matrices import definite, times
from jaxrl_par.guidance import Controllers


class Quadratic(NamedTuple):
    """1/2 z^T hessian z + gradient^T z, for every step."""

    hessian: Float[Array, "T Z Z"]
    gradient: Float[Array, "T Z"]

    def plus(
        self, other: "Quadratic", weight: Float[Array, " T"] | float
    ) -> "Quadratic":
        """This and so many times the other one."""
        weight = jnp.broadcast_to(jnp.asarray(weight), self.gradient.shape[:1])
        return Quadratic(
            self.hessian + weight[:, None, None] * other.hessian,
            self.gradient + weight[:, None] * other.gradient,
        )


class Dynamics(NamedTuple):
    """x' = N(matrix z + offset, covariance), for every step."""

    matrix: Float[Array, "T D Z"]
    offset: Float[Array, "T D"]
    covariance: Float[Array, "T D D"]


class Value(NamedTuple):
    """1/2 x^T hessian x + gradient^T x"""

    hessian: Float[Array, "D D"]
    gradient: Float[Array, " D"]


class Solution(NamedTuple):
    """Of a backward pass."""

    controllers: Controllers
    """Their covariance is the inverse of the Q_uu that the gain is of."""
    value: Value
    """At the first step."""
    indefinite: Int[Array, ""]
    """Steps whose Q_uu was not positive definite, so that something was added to it."""
    linear: Float[Array, ""]
    squared: Float[Array, ""]
    """Where z = 0 is what was done, `a` times the offsets change the cost by
    a linear + a^2 squared."""


class Moments(NamedTuple):
    """Of z under a controller, for every step."""

    mean: Float[Array, "T Z"]
    covariance: Float[Array, "T Z Z"]


def backward(
    cost: Quadratic,
    dynamics: Dynamics,
    final: Value | None = None,
    added: Float[Array, ""] | float = 0.0,
) -> Solution:
    """The controllers of least cost.

    Args:
      final: of the state after the last step.
      added: to the diagonal of every Q_uu whose gain is taken.
    """
    size = dynamics.offset.shape[1]
    number = cost.gradient.shape[1] - size
    zeros = jnp.zeros((size, size)), jnp.zeros(size)
    value = Value(*zeros) if final is None else final

    def step(value: Value, inputs: tuple[Quadratic, Dynamics]):
        cost, dynamics = inputs
        matrix, offset = dynamics.matrix, dynamics.offset
        future = times(value.hessian, matrix)
        hessian = cost.hessian + times(matrix.T, future)
        gradient = cost.gradient + times(matrix.T, value.gradient)
        gradient = gradient + times(future.T, offset)
        both, own = hessian[size:, :size], hessian[size:, size:]
        inner = definite(own + added * jnp.eye(number))
        right = jnp.concatenate([both, gradient[size:, None]], axis=1)
        solved = -inner.solve(right)
        gain, shift = solved[:, :size], solved[:, size]
        controller = Controllers(gain, shift, inner.inverse())
        value = value_of(hessian, gradient, gain, shift)
        change = (
            jnp.sum(shift * gradient[size:]),
            0.5 * jnp.sum(shift * times(own, shift)),
        )
        return value, (controller, ~inner.is_own, *change)

    value, (controllers, wrong, *change) = jax.lax.scan(
        step, value, (cost, dynamics), reverse=True
    )
    wrong = jnp.sum(wrong, dtype=jnp.int32)
    return Solution(controllers, value, wrong, *map(jnp.sum, change))


def value_of(
    hessian: Float[Array, "Z Z"],
    gradient: Float[Array, " Z"],
    gain: Float[Array, "A D"],
    shift: Float[Array, " A"],
) -> Value:
    """The value of any gain and shift, from Q's hessian and gradient without what was
    added to find them."""
    size = gain.shape[1]
    both, own = hessian[size:, :size], hessian[size:, size:]
    cross, squared = times(gain.T, both), times(gain.T, times(own, gain))
    curvature = hessian[:size, :size] + cross + cross.T + squared
    slope = gradient[:size] + times(gain.T, gradient[size:] + times(own, shift))
    slope = slope + times(both.T, shift)
    return Value(0.5 * (curvature + curvature.T), slope)


def moments(
    controllers: Controllers,
    dynamics: Dynamics,
    mean: Float[Array, " D"],
    covariance: Float[Array, "D D"],
) -> Moments:
    """How states and actions are distributed, from the first state's mean and
    covariance on."""

    def step(now, inputs):
        mean, covariance = now
        (gain, offset, noise), dynamics = inputs
        mixed = jnp.concatenate([jnp.eye(len(mean)), gain])
        both = jnp.concatenate([mean, times(gain, mean) + offset])
        size = len(mean)
        spread = times(times(mixed, covariance), mixed.T)
        spread = spread.at[size:, size:].add(noise)
        matrix = dynamics.matrix
        after = times(times(matrix, spread), matrix.T) + dynamics.covariance
        return (times(matrix, both) + dynamics.offset, after), Moments(both, spread)

    _, found = jax.lax.scan(step, (mean, covariance), (controllers, dynamics))
    return found


def expected(cost: Quadratic, moments: Moments) -> Float[Array, ""]:
    """The expected cost of all steps, without the constant."""
    second = moments.covariance + moments.mean[:, :, None] * moments.mean[:, None]
    return 0.5 * jnp.sum(cost.hessian * second) + jnp.sum(cost.gradient * moments.mean)
