"""Regression with a prior, and mixtures, by identities that need no numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nearness import assert_near

from jaxrl_par.algorithms.gps.mixture import (
    Mixture,
    improved,
    memberships,
    prior_at,
    spread_over_time,
)
from jaxrl_par.algorithms.gps.regression import Prior, fitted
from jaxrl_par.axis import Axis

SIZE, NUMBER = 3, 2


def system(num_samples, seed=0):
    """(F, f, inputs, outputs) of dynamics without noise."""
    draws = np.random.default_rng(seed)
    matrix, offset = draws.normal(size=(SIZE, SIZE + NUMBER)), draws.normal(size=SIZE)
    inputs = draws.normal(size=(num_samples, SIZE + NUMBER))
    given = matrix, offset, inputs, inputs @ matrix.T + offset
    return tuple(jnp.float32(x) for x in given)


@pytest.mark.parametrize(
    "num_samples", [SIZE + NUMBER + 1, pytest.param(20, marks=pytest.mark.slow)]
)
def test_regression_recovers_a_linear_system(num_samples):
    matrix, offset, inputs, outputs = system(num_samples)
    fit = fitted(inputs, outputs, ridge=0.0)
    np.testing.assert_allclose(fit.matrix, matrix, atol=2e-4)
    np.testing.assert_allclose(fit.offset, offset, atol=2e-4)
    np.testing.assert_allclose(fit.covariance, 0.0, atol=1e-4)


def moments_of(points):
    points = np.float64(points)
    mean = points.mean(axis=0)
    return Prior(jnp.float32(mean), jnp.float32(np.cov(points.T, bias=True)))


@pytest.mark.slow
def test_a_prior_is_worth_so_many_samples():
    """With those that it is made of, the regression is the same."""
    *_, inputs, outputs = system(20)
    outputs = outputs + jax.random.normal(jax.random.key(0), outputs.shape)
    joint = jnp.concatenate([inputs, outputs], axis=1)
    together = fitted(inputs, outputs)
    apart = fitted(inputs[:8], outputs[:8], moments_of(joint[8:]), strength=12.0)
    assert_near(apart, together, 1e-4)


@pytest.mark.slow
def test_few_samples_and_a_prior_of_the_same_system_determine_it():
    """3 samples, where 6 are needed."""
    matrix, offset, inputs, outputs = system(40)
    joint = jnp.concatenate([inputs, outputs], axis=1)
    fit = fitted(inputs[:3], outputs[:3], moments_of(joint))
    np.testing.assert_allclose(fit.matrix, matrix, atol=1e-3)
    np.testing.assert_allclose(fit.offset, offset, atol=1e-3)


@pytest.mark.slow
def test_an_input_that_never_changes_spoils_nothing():
    matrix, _, inputs, outputs = system(20)
    still = jnp.concatenate([inputs, jnp.full((20, 1), 7.0)], axis=1)
    fit = fitted(still, outputs)
    np.testing.assert_allclose(fit.matrix[:, :-1], matrix, atol=1e-3)
    assert np.all(np.isfinite(fit.matrix)) and np.abs(fit.matrix[:, -1]).max() < 1e-3


def two_groups():
    draws = np.random.default_rng(1)
    left = draws.normal(size=(60, 2)) * [0.3, 0.1] + [-2, 0]
    right = draws.normal(size=(40, 2)) * [0.1, 0.4] + [2, 1]
    return left, right


@pytest.mark.slow
def test_a_mixture_finds_two_groups():
    left, right = two_groups()
    points = jnp.float32(np.concatenate([left, right]))
    # All of the first half in one cluster, and some of both in the other.
    first = spread_over_time(points[None], 2, Axis())
    found = jax.jit(lambda m: improved(m, points, 10, Axis()))(first)
    np.testing.assert_allclose(found.weights, [0.6, 0.4], atol=1e-3)
    for k, group in enumerate((left, right)):
        np.testing.assert_allclose(found.means[k], group.mean(axis=0), atol=1e-3)
        covariance = np.cov(group.T, bias=True)
        np.testing.assert_allclose(found.covariances[k], covariance, atol=1e-3)
    told = prior_at(found, jnp.float32(right[:5]))
    np.testing.assert_allclose(told.mean, right.mean(axis=0), atol=1e-3)


@pytest.mark.slow
def test_memberships_are_by_density():
    mixture = Mixture(
        jnp.array([0.25, 0.75]),
        jnp.array([[0.0], [1.0]]),
        jnp.array([[[1.0]], [[4.0]]]),
    )
    x = np.array([-1.0, 0.5, 3.0])
    densities = np.stack(
        [0.25 * np.exp(-0.5 * x**2), 0.75 * np.exp(-0.125 * (x - 1) ** 2) / 2], axis=1
    )
    right = densities / densities.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        memberships(mixture, jnp.float32(x[:, None])), right, atol=1e-4
    )


@pytest.mark.slow
def test_instances_share_one_mixture():
    left, right = two_groups()
    points = jnp.float32(np.concatenate([left, right]))
    shares = points.reshape(25, 4, 2).swapaxes(0, 1)

    def found(points, axis):
        first = spread_over_time(points[:, None], 1, axis)
        wider = jax.tree.map(lambda x: jnp.concatenate([x, x + 0.5]), first)
        return improved(wider, points, 3, axis)

    apart = jax.vmap(lambda x: found(x, Axis("i")), axis_name="i")(shares)
    joint = found(points, Axis())
    jax.tree.map(lambda x, y: assert_near(x[1], y, 1e-4), apart, joint)
