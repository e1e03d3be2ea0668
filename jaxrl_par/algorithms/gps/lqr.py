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

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int

from jaxrl_par.algorithms.gps.matrices import (
    Definite,
    definite,
    diagonal_ones,
    times,
    transposed_times,
)
from jaxrl_par.guidance import Controllers


class Quadratic(NamedTuple):
    """1/2 z^T hessian z + gradient^T z, for every step."""

    hessian: Float[Array, "T Z Z *J"]
    gradient: Float[Array, "T Z *J"]

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

    matrix: Float[Array, "T D Z *J"]
    offset: Float[Array, "T D *J"]
    covariance: Float[Array, "T D D *J"]


class Value(NamedTuple):
    """1/2 x^T hessian x + gradient^T x"""

    hessian: Float[Array, "D D *J"]
    gradient: Float[Array, "D *J"]


class Solution(NamedTuple):
    """Of a backward pass."""

    controllers: Controllers
    """Their covariance is the inverse of the Q_uu that the gain is of."""
    value: Value
    """At the first step."""
    indefinite: Int[Array, "*J"]
    """Steps whose Q_uu was not positive definite, so that something was added to it."""
    linear: Float[Array, "*J"]
    squared: Float[Array, "*J"]
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
    added: Float[Array, "*J"] | float = 0.0,
) -> Solution:
    """The controllers of least cost.

    All arrays may have the same axes of a batch behind their own, which is where `vmap`
    moves its own, too: see `matrices`.

    Args:
      final: of the state after the last step.
      added: to the diagonal of every Q_uu whose gain is taken.
    """
    size, *batch = dynamics.offset.shape[1:]
    zeros = jnp.zeros((size, size, *batch)), jnp.zeros((size, *batch))
    value = Value(*zeros) if final is None else final
    added = jnp.broadcast_to(jnp.float32(added), batch)
    return _backward(cost, dynamics[:2], value, added)


@custom_vmap
def _backward(
    cost: Quadratic,
    dynamics: tuple[Float[Array, "T D Z *J"], Float[Array, "T D *J"]],
    value: Value,
    added: Float[Array, "*J"],
) -> Solution:
    """`backward`, with all arguments."""
    size = value.gradient.shape[0]

    def step(value: Value, inputs: tuple[Quadratic, tuple[Array, Array]]):
        cost, (matrix, offset) = inputs
        start = jnp.zeros_like(matrix), value.gradient
        future = transposed_times(value.hessian, (matrix, offset), start)
        hessian, gradient = transposed_times(matrix, future, cost)
        both, own = hessian[size:, :size], hessian[size:, size:]
        inner = definite(own + added * diagonal_ones(own))
        gain, shift = -inner.solve(both), -inner.solve(gradient[size:])
        value = value_of(hessian, gradient, gain, shift)
        return value, (inner, gain, shift, own, gradient[size:])

    value, (inner, gain, shift, own, gradient) = jax.lax.scan(
        step, value, (cost, dynamics), reverse=True
    )
    # What the recursion does not need is of all steps at once.
    linear = jnp.sum(shift * gradient, axis=(0, 1))
    squared = 0.5 * jnp.sum(shift[:, :, None] * own * shift[:, None], axis=(0, 1, 2))
    return Solution(
        Controllers(gain, shift, jax.vmap(Definite.inverse)(inner)),
        value,
        jnp.sum(~inner.is_own, axis=0, dtype=jnp.int32),
        linear,
        squared,
    )


@_backward.def_vmap
def _batched(size: int, batched: Any, *given: Any) -> tuple[Solution, Any]:
    """The batch moves behind, as one axis of two, which is faster than one of many."""

    def behind(x: Any, is_batched: bool) -> Array:
        x = jnp.asarray(x)  # a constant comes as a literal of NumPy
        if is_batched:
            return x.reshape(size, -1).T.reshape(*x.shape[1:], size)
        return jnp.broadcast_to(x[..., None], (*x.shape, size))

    def before(x: Array) -> Array:
        return x.reshape(-1, size).T.reshape(size, *x.shape[:-1])

    found = _backward(*jax.tree.map(behind, given, tuple(batched)))
    return jax.tree.map(before, found), jax.tree.map(lambda _: True, found)


def value_of(
    hessian: Float[Array, "Z Z *J"],
    gradient: Float[Array, "Z *J"],
    gain: Float[Array, "A D *J"],
    shift: Float[Array, "A *J"],
) -> Value:
    """The value of any gain and shift, from Q's hessian and gradient without what was
    added to find them."""
    size = gain.shape[1]
    both, own = hessian[size:, :size], hessian[size:, size:]
    curvature, slope = hessian[:size, :size], gradient[:size]
    for a, row in enumerate(gain):
        change = sum(own[a, b, None] * gain[b] for b in range(len(gain)))
        # K^T Q_ux + Q_ux^T K is twice the symmetric part of K^T Q_ux.
        product = row[:, None] * (2.0 * both[a] + change)[None]
        curvature = curvature + 0.5 * (product + product.swapaxes(0, 1))
        change = sum(own[a, b] * shift[b] for b in range(len(gain)))
        slope = slope + row * (gradient[size + a] + change) + both[a] * shift[a]
    return Value(curvature, slope)


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
