"""Backward passes against slow loops, known gains, and what is never inverted."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.algorithms.gps.lqr import (
    Dynamics,
    Quadratic,
    Value,
    backward,
    expected,
    moments,
)
from jaxrl_par.algorithms.gps.matrices import definite

ONE = Value(jnp.ones((1, 1)), jnp.zeros(1))
"""x^2 / 2, of the last state."""


def scalar(length, slope=0.0):
    """x' = x + u at cost (x^2 + u^2) / 2 + slope (x + u)."""
    cost = Quadratic(
        jnp.broadcast_to(jnp.eye(2), (length, 2, 2)), jnp.full((length, 2), slope)
    )
    still = jnp.zeros((length, 1))
    return cost, Dynamics(jnp.ones((length, 1, 2)), still, still[..., None])


def random_problem(seed, length=4, size=3, number=2):
    """A cost that curves upwards, and any dynamics."""
    draws = np.random.default_rng(seed)
    both = size + number
    root = draws.normal(size=(length, both, both))
    cost = Quadratic(
        root @ root.transpose(0, 2, 1) + 0.5 * np.eye(both),
        draws.normal(size=(length, both)),
    )
    dynamics = Dynamics(
        0.5 * draws.normal(size=(length, size, both)),
        draws.normal(size=(length, size)),
        np.zeros((length, size, size)),
    )
    return jax.tree.map(jnp.float32, (cost, dynamics))


def paid(cost, dynamics, controllers, start):
    """What the controllers' means cost from there, step by step."""
    x, total = np.asarray(start, np.float64), 0.0
    given = jax.tree.map(np.float64, (cost, dynamics, controllers))
    for hessian, gradient, matrix, offset, gain, shift in zip(
        *given[0], *given[1][:2], *given[2][:2], strict=True
    ):
        z = np.concatenate([x, gain @ x + shift])
        total += 0.5 * z @ hessian @ z + gradient @ z
        x = matrix @ z + offset
    return total


def test_gains_and_value_come_to_the_golden_ratio():
    solution = backward(*scalar(10), ONE)
    gains = np.asarray(solution.controllers.gain).ravel()[::-1]
    np.testing.assert_allclose(gains[:4], [-0.5, -0.6, -0.615385, -0.617647], atol=1e-6)
    golden = (1 + 5**0.5) / 2
    np.testing.assert_allclose(gains[-1], 1 - golden, atol=1e-6)
    np.testing.assert_allclose(solution.value.hessian, [[golden]], atol=1e-6)


def test_the_value_is_that_of_a_regularised_gain():
    """Trap 13: 1.75 and 0.75 are of formulas that hold for the plain gain alone."""
    solution = backward(*scalar(1, slope=1.0), ONE, 2.0)
    np.testing.assert_allclose(solution.controllers.gain, [[[-0.25]]], atol=1e-7)
    np.testing.assert_allclose(solution.value.hessian, [[1.625]], atol=1e-7)
    np.testing.assert_allclose(solution.value.gradient, [0.625], atol=1e-7)
    plain = backward(*scalar(1, slope=1.0), ONE)
    np.testing.assert_allclose(plain.value.hessian, [[1.5]], atol=1e-7)
    np.testing.assert_allclose(plain.value.gradient, [0.5], atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("added", [0.0, 2.0])
def test_the_value_is_what_the_controllers_pay(added):
    """But for its constant, which the difference from another start has not."""
    cost, dynamics = random_problem(0)
    solution = backward(cost, dynamics, added=added)
    starts = np.random.default_rng(1).normal(size=(3, 3))

    def told(x):
        return 0.5 * x @ solution.value.hessian @ x + solution.value.gradient @ x

    for x, y in pairwise(starts):
        real = [paid(cost, dynamics, solution.controllers, s) for s in (x, y)]
        np.testing.assert_allclose(told(x) - told(y), np.subtract(*real), rtol=2e-4)


@pytest.mark.slow
def test_nobody_pays_less_than_the_plain_gain():
    cost, dynamics = random_problem(2)
    best = backward(cost, dynamics).controllers
    start = np.ones(3)
    least = paid(cost, dynamics, best, start)
    draws = np.random.default_rng(3)
    for _ in range(5):
        offset = best.offset + 0.1 * draws.normal(size=best.offset.shape)
        assert paid(cost, dynamics, best._replace(offset=offset), start) > least
    more = backward(cost, dynamics, added=1.0).controllers
    assert paid(cost, dynamics, more, start) > least


def test_an_indefinite_matrix_is_made_definite_and_counted():
    """Inverted blindly, the gain would lead to the maximum."""
    cost, dynamics = scalar(3)
    bent = cost.hessian.at[1, 1, 1].set(-5.0)
    solution = backward(cost._replace(hessian=bent), dynamics, ONE)
    assert int(solution.indefinite) >= 1
    noise = np.asarray(solution.controllers.covariance)
    assert np.all(np.isfinite(noise)) and np.all(noise > 0)
    assert np.abs(solution.controllers.gain).max() < 2
    assert int(backward(cost, dynamics, ONE).indefinite) == 0


def test_a_cost_that_is_no_number_is_no_controller():
    cost, dynamics = scalar(2)
    broken = cost._replace(hessian=cost.hessian.at[1, 1, 1].set(jnp.nan))
    solution = backward(broken, dynamics, ONE)
    assert int(solution.indefinite) >= 1
    assert not np.all(np.isfinite(solution.controllers.gain))


def test_a_batch_is_what_each_is_alone():
    """Also where some arguments are the same for all, and in a batch of batches."""
    first, second = random_problem(6, length=2), random_problem(7, length=2)
    cost, dynamics = jax.tree.map(lambda *x: jnp.stack(x), first, second)
    added = jnp.array([[0.0, 1.0, 4.0], [2.0, 0.5, 0.0]])
    within = jax.vmap(backward, (None, None, None, 0))
    together = jax.jit(jax.vmap(within, (0, 0, None, 0)))
    found = together(cost, dynamics, Value(jnp.eye(3), jnp.ones(3)), added)
    alone = jax.jit(backward)
    for i, (problem, more) in enumerate(zip((first, second), added, strict=True)):
        for j, x in enumerate(more):
            told = jax.tree.map(lambda x, i=i, j=j: x[i, j], found)
            expected = alone(*problem, Value(jnp.eye(3), jnp.ones(3)), x)
            for a, b in zip(*map(jax.tree.leaves, (told, expected)), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-5 * (1 + np.abs(b).max()))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 5])
def test_small_matrices_agree_with_lapack(size):
    root = np.random.default_rng(size).normal(size=(size, size))
    matrix = root @ root.T + np.eye(size)
    right = jnp.arange(size * 2.0).reshape(size, 2)
    found = definite(jnp.float32(matrix))
    assert bool(found.is_own)
    near = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(found.factor, np.linalg.cholesky(matrix), **near)
    np.testing.assert_allclose(
        found.solve(right), np.linalg.solve(matrix, right), **near
    )
    np.testing.assert_allclose(found.inverse(), np.linalg.inv(matrix), **near)
    determinant = np.linalg.slogdet(matrix)[1]
    np.testing.assert_allclose(found.log_determinant(), determinant, **near)


@pytest.mark.parametrize(
    "matrix", [[[-1.0]], [[1.0, 2.0], [2.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0]]]
)
def test_what_is_added_is_enough(matrix):
    found = definite(jnp.array(matrix))
    assert not bool(found.is_own)
    assert np.linalg.eigvalsh(np.float64(found.matrix)).min() > 0


@pytest.mark.slow
def test_moments_are_those_of_many_rollouts():
    cost, dynamics = random_problem(4, length=3)
    dynamics = dynamics._replace(
        covariance=jnp.broadcast_to(0.1 * jnp.eye(3), (3, 3, 3))
    )
    controllers = backward(cost, dynamics).controllers
    told = moments(controllers, dynamics, jnp.ones(3), 0.2 * jnp.eye(3))
    draws = np.random.default_rng(5)
    x = 1.0 + 0.2**0.5 * draws.normal(size=(40_000, 3))
    total = 0.0
    for t in range(3):
        noise = draws.multivariate_normal(
            np.zeros(2), controllers.covariance[t], len(x)
        )
        u = x @ np.asarray(controllers.gain[t]).T + controllers.offset[t] + noise
        z = np.concatenate([x, u], axis=1)
        np.testing.assert_allclose(told.mean[t], z.mean(axis=0), atol=0.03)
        np.testing.assert_allclose(told.covariance[t], np.cov(z.T), atol=0.05)
        squares = np.einsum("ni,ij,nj->n", z, cost.hessian[t], z)
        total += np.mean(0.5 * squares + z @ np.asarray(cost.gradient[t]))
        noise = 0.1**0.5 * draws.normal(size=x.shape)
        x = z @ np.asarray(dynamics.matrix[t]).T + dynamics.offset[t] + noise
    np.testing.assert_allclose(expected(cost, told), total, rtol=0.02, atol=0.1)
