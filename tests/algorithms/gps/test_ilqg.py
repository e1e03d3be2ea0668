"""iLQG: the line search by its numbers, and plans in systems that are not linear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.algorithms.gps.ilqg import (
    Problem,
    acceptable,
    forward,
    ilqg,
    nothing,
    relative,
    rolled,
)


def scalar_step(scene, x, u):
    return x + u


def half_squares(scene, x, u):
    return 0.5 * jnp.sum(x**2) + 0.5 * jnp.sum(u**2)


def last_square(scene, x):
    return 0.5 * jnp.sum(x**2)


SCALAR = Problem(scalar_step, half_squares, last_square, (), jnp.ones(1))
STILL = jnp.zeros((2, 1))


def test_the_line_search_has_these_numbers():
    """Trap 14: offsets are scaled and gains are not. Scaling both costs 0.9431 at 1/2,
    and without feedback a whole step costs 0.89."""
    nominal = rolled(SCALAR, STILL)
    np.testing.assert_allclose(nominal.cost, 1.5, atol=1e-6)
    solution = relative(SCALAR, nominal)
    np.testing.assert_allclose(
        solution.controllers.offset.ravel(), [-0.6, -0.5], atol=1e-6
    )
    np.testing.assert_allclose(
        [solution.linear, solution.squared], [-1.4, 0.7], atol=1e-6
    )
    gain, offset, _ = solution.controllers
    for size, right in ((1.0, 0.8), (0.5, 0.975)):
        tried = forward(SCALAR, nominal.states[:-1], STILL, gain, offset, size)
        np.testing.assert_allclose(tried.cost, right, atol=1e-6)
        told = 1.5 + size * solution.linear + size**2 * solution.squared
        np.testing.assert_allclose(told, right, atol=1e-6)


@pytest.mark.slow
def test_a_linear_quadratic_problem_takes_one_iteration():
    plan = ilqg(SCALAR, STILL, 1)
    np.testing.assert_allclose(plan.trajectory.cost, 0.8, atol=1e-6)
    again = ilqg(SCALAR, STILL, 3)
    np.testing.assert_allclose(
        again.trajectory.actions, plan.trajectory.actions, atol=1e-5
    )
    # In absolute coordinates: where it is, the plan does what it did.
    states = plan.trajectory.states[:-1]
    gain, offset, _ = plan.controllers
    chosen = jnp.einsum("tad,td->ta", gain, states) + offset
    np.testing.assert_allclose(chosen, plan.trajectory.actions, atol=1e-6)


def test_a_cost_that_is_no_number_is_never_accepted():
    costs = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1.5, 1.6, 0.9])
    good = acceptable(jnp.float32(1.5), costs, jnp.full(6, 0.5))
    np.testing.assert_array_equal(good, [False, False, False, False, False, True])


@pytest.mark.slow
def test_a_plan_stays_where_its_cost_is_a_number():
    def broken(scene, x, u):
        return jnp.where(jnp.abs(u[0]) > 0.55, jnp.nan, half_squares(scene, x, u))

    plan = ilqg(SCALAR._replace(cost=broken), STILL, 2)
    # The whole step is -0.6 at first, where the cost is none.
    assert np.isfinite(plan.trajectory.cost) and plan.trajectory.cost < 1.5
    assert np.abs(plan.trajectory.actions).max() <= 0.55


@pytest.mark.slow
def test_plans_of_a_pendulum_end_upright_for_all_starts_at_once():
    def step(scene, x, u):
        speed = x[1] + 0.1 * (5.0 * jnp.sin(x[0]) + u[0])
        return jnp.stack([x[0] + 0.1 * speed, speed])

    def cost(scene, x, u):
        return 1.0 - jnp.cos(x[0]) + 0.05 * x[1] ** 2 + 0.01 * u[0] ** 2

    def planned(start):
        problem = Problem(step, cost, nothing, (), start)
        return ilqg(problem, jnp.zeros((60, 1)), 60)

    starts = jnp.array([[jnp.pi - 0.2, 0.0], [2.0, 0.0], [jnp.pi - 0.4, 1.0]])
    plans = jax.jit(jax.vmap(planned))(starts)
    ends = np.asarray(plans.trajectory.states[:, -1])
    np.testing.assert_allclose(np.cos(ends[:, 0]), 1.0, atol=0.05)
