"""Trust regions of controllers: their ends, their bound, and how it grows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.algorithms.gps.constrained import Pull, constrained, growth
from jaxrl_par.algorithms.gps.divergence import divergences, surprise
from jaxrl_par.algorithms.gps.lqr import Dynamics, Quadratic, backward, moments
from jaxrl_par.guidance import Controllers

LENGTH = 5
START = jnp.ones(1), 1e-4 * jnp.eye(1)
OLD = Controllers(
    jnp.full((LENGTH, 1, 1), -0.2),
    jnp.full((LENGTH, 1), 0.1),
    jnp.full((LENGTH, 1, 1), 0.5),
)


def scalar(curvature=1.0):
    """x' = x + u at cost (x^2 + curvature u^2) / 2."""
    hessian = jnp.diag(jnp.array([1.0, curvature]))
    cost = Quadratic(jnp.broadcast_to(hessian, (LENGTH, 2, 2)), jnp.zeros((LENGTH, 2)))
    still = jnp.zeros((LENGTH, 1))
    return cost, Dynamics(jnp.ones((LENGTH, 1, 2)), still, still[..., None])


step = jax.jit(partial(constrained, old=OLD, start=START))


@pytest.mark.slow
def test_without_a_bound_it_is_the_plain_optimum_and_without_room_the_old():
    cost, dynamics = scalar()
    best = backward(cost, dynamics).controllers
    free = step(cost, dynamics, bound=jnp.float32(jnp.inf))
    assert bool(free.moved)
    np.testing.assert_allclose(free.controllers.gain, best.gain, atol=1e-5)
    np.testing.assert_allclose(free.controllers.offset, best.offset, atol=1e-5)
    tied = step(cost, dynamics, bound=jnp.float32(1e-6))
    for new, old in zip(tied.controllers, OLD, strict=True):
        np.testing.assert_allclose(new, old, atol=2e-3)
    assert float(jnp.sum(tied.divergences)) <= 1e-6


@pytest.mark.slow
def test_the_bound_is_used_and_kept():
    cost, dynamics = scalar()
    falls = []
    for bound in (0.1, 0.5, 2.0):
        found = step(cost, dynamics, bound=jnp.float32(bound))
        total = float(jnp.sum(found.divergences))
        assert 0.99 * bound < total <= bound
        told = moments(found.controllers, dynamics, *START)
        again = divergences(found.controllers, OLD, told)
        np.testing.assert_allclose(jnp.sum(again), total, rtol=1e-4)
        falls.append(float(found.eta))
    assert falls == sorted(falls, reverse=True)


@pytest.mark.slow
def test_divergences_are_the_closed_form_of_normals():
    """Of one number: log s/r + (r^2 + (m - n)^2) / (2 s^2) - 1/2, over states."""
    new = Controllers(*(1.5 * x for x in OLD))
    _, dynamics = scalar()
    told = moments(new, dynamics, *START)
    found = np.asarray(divergences(new, OLD, told))
    mean, spread = np.asarray(told.mean[:, 0]), np.asarray(told.covariance[:, 0, 0])
    apart = (-0.1 * mean + 0.05) ** 2 + 0.01 * spread
    right = 0.5 * np.log(0.5 / 0.75) + (0.75 + apart) / (2 * 0.5) - 0.5
    np.testing.assert_allclose(found, right, rtol=1e-4)


@pytest.mark.slow
def test_surprise_is_minus_the_log_of_a_normal():
    cost = surprise(OLD)
    for x, u in ((0.3, -1.0), (2.0, 0.5)):
        z = np.array([x, u])
        told = 0.5 * z @ cost.hessian[0] @ z + cost.gradient[0] @ z
        right = ((u + 0.2 * x - 0.1) ** 2 - 0.1**2) / (2 * 0.5)
        np.testing.assert_allclose(told, right, rtol=1e-5)


def test_a_cost_that_curves_down_raises_the_multiplier_and_is_counted():
    """Where eta is too small for a minimum nothing is inverted, and eta grows."""
    cost, dynamics = scalar(curvature=-3.0)
    found = step(cost, dynamics, bound=jnp.float32(1e6))
    assert bool(found.moved) and int(found.indefinite) > 0
    noise = np.asarray(found.controllers.covariance)
    assert np.all(np.isfinite(noise)) and np.all(noise > 0)
    # That of the sum of both: never of the cost alone.
    assert float(found.eta) / 0.5 > 3.0 - 1.0 - LENGTH


def test_a_cost_that_is_no_number_moves_nothing():
    cost, dynamics = scalar()
    broken = cost._replace(gradient=cost.gradient.at[2].set(jnp.nan))
    found = step(broken, dynamics, bound=jnp.float32(1.0))
    assert not bool(found.moved)
    jax.tree.map(np.testing.assert_array_equal, found.controllers, OLD)


@pytest.mark.slow
def test_who_is_drawn_strongly_follows():
    cost, dynamics = scalar()
    other = OLD._replace(gain=OLD.gain - 0.5)
    heavy = Pull(other, jnp.full(LENGTH, 1e4))
    found = step(cost, dynamics, bound=jnp.float32(jnp.inf), pull=heavy)
    np.testing.assert_allclose(found.controllers.gain, other.gain, atol=1e-3)
    np.testing.assert_allclose(
        found.controllers.covariance, other.covariance, rtol=1e-3
    )


@pytest.mark.parametrize(
    ("actual", "right"),
    [(-1, 0.25), (0.5, 1), (0.9, 5), (1.5, 10), (1, 10), (-99, 0.1)],
)
def test_a_step_that_beats_its_prediction_grows_most(actual, right):
    """Trap 15, with a predicted fall of 1: a ratio alone gives -1 for 1.5, which is
    clipped to the smallest growth, and divides by 0 for 1."""
    found = growth(jnp.float32(1.0), jnp.float32(actual))
    np.testing.assert_allclose(found, right, rtol=1e-5)
