"""Natural gradients and the search along them, against numbers worked out by hand."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.axis import Axis
from jaxrl_par.distributions import Categorical, DiagNormal
from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.trust_region import (
    Region,
    TrustRegionConfig,
    around,
    conjugate_gradients,
    full_step,
    step_within,
)

PLAIN = TrustRegionConfig(damping=0.0)


def normal(slopes, size=1, bend=0.0):
    """Of Normal(m, exp(s)): a gain with these slopes in (m, s), less a parabola."""
    slopes = jnp.asarray(slopes, jnp.float32)

    def gain(policy):
        both = jnp.concatenate([policy.mean, policy.log_std - jnp.log(0.5)])
        return slopes @ both - bend * both @ both

    def policies(params):
        return DiagNormal(params[:size], params[size:])

    return Region(policies, gain, lambda old, new: old.kl(new))


def at_half(size=1):
    """Mean 0 and standard deviation 0.5."""
    return jnp.concatenate([jnp.zeros(size), jnp.full(size, jnp.log(0.5))])


def taken(region, config=PLAIN, size=1):
    found = jax.jit(partial(step_within, region, config=config))(at_half(size))
    return np.asarray(found.step), {n: float(x) for n, x in found.metrics.items()}


def exact_kl(step):
    """KL(Normal(0, .5), Normal(m, .5 exp(s))) in float64, from its definition."""
    m, s = np.float64(step)
    std = 0.5 * np.exp(s)
    return s + (0.25 + m**2) / (2 * std**2) - 0.5


def test_a_full_step_is_that_of_fishers_matrix():
    """F = diag(4, 2): with log std left out it would be (0.0707, 0), and with both
    sides of the KL differentiated there would be none."""
    step, told = taken(normal([1, 1]))
    np.testing.assert_allclose(step, [0.040825, 0.081650], atol=1e-6)
    assert exact_kl(step) == pytest.approx(0.009149, abs=1e-6)
    assert told["kl"] == pytest.approx(0.009149, abs=1e-6)
    assert told["halvings"] == told["no_step"] == 0
    # Its KL is a sum over dimensions: of two, each has half of the bound.
    step, told = taken(normal([1] * 4, size=2), size=2)
    np.testing.assert_allclose(step, [0.028868] * 2 + [0.057735] * 2, atol=1e-6)


def test_what_is_taken_is_what_was_looked_at():
    """The full step has a KL of 0.010969, so half of it is taken."""
    full, told = taken(normal([1, -1]), replace(PLAIN, step="natural"))
    assert exact_kl(full) == pytest.approx(0.010969, abs=1e-6)
    assert told["kl"] == pytest.approx(0.010969, abs=1e-6) and not told["halvings"]
    step, told = taken(normal([1, -1]))
    np.testing.assert_allclose(step, [0.020412, -0.040825], atol=1e-6)
    np.testing.assert_array_equal(step, full / 2)
    assert exact_kl(step) == pytest.approx(0.002617, abs=1e-6)
    assert told["kl"] == pytest.approx(0.002617, abs=1e-6)
    assert told["gain"] == pytest.approx(0.061237, abs=1e-6)
    assert told["halvings"] == 1 and not told["no_step"]


def test_a_step_that_gains_nothing_is_halved_though_its_kl_is_within_the_bound():
    """The full step is (0.040825, 0.081650), of which f gains 0.122474 f less
    20 (0.008333 f**2): nothing from f = 0.73485 on."""
    step, told = taken(normal([1, 1], bend=20.0))
    np.testing.assert_allclose(step, [0.020412, 0.040825], atol=1e-6)
    assert told["halvings"] == 1
    assert told["gain"] == pytest.approx(0.0612372 - 0.0416667, abs=1e-6)


def test_where_no_trial_fits_nothing_moves_and_it_is_counted():
    none = replace(PLAIN, max_halvings=0)
    step, told = taken(normal([1, -1]), none)
    assert step.tolist() == [0.0, 0.0]
    assert told == {"kl": 0.0, "gain": 0.0, "halvings": 1.0, "no_step": 1.0}
    # No gain at any length: its slope is 0.
    step, told = taken(normal([0, 0], bend=1.0))
    assert step.tolist() == [0.0, 0.0]
    assert told["no_step"] == 1.0 and told["halvings"] == 11.0


@pytest.mark.parametrize("iterations", [1, 2, 3, 10, 60])
def test_conjugate_gradients_stay_where_they_are_done(iterations):
    solved = jax.jit(
        lambda diagonal, target: conjugate_gradients(
            lambda vector: diagonal * vector, target, iterations
        )
    )
    ones, diagonal = jnp.ones(2), jnp.array([4.0, 2.0])
    assert solved(ones, jnp.array([3.0, 4.0])).tolist() == [3.0, 4.0]
    assert solved(diagonal, jnp.zeros(2)).tolist() == [0.0, 0.0]
    if iterations > 1:
        found = solved(diagonal, ones)
        np.testing.assert_allclose(found, [0.25, 0.5], rtol=1e-6)


def test_a_gradient_that_is_not_finite_makes_no_step_that_is():
    step, _ = taken(normal([np.nan, 1]))
    assert np.all(np.isnan(step))


def rows(number=6):
    """Softmax policies of three actions, linear in two features, and their gain."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(number, 2)).astype(np.float32)
    slopes = rng.normal(size=(number, 3)).astype(np.float32)
    return jnp.asarray(features), jnp.asarray(slopes)


def softmax(features, slopes):
    def gain(policy):
        return jnp.mean(jnp.sum(slopes * jnp.exp(policy.log_probs), axis=1))

    return Region(
        lambda weights: Categorical(features @ weights),
        gain,
        lambda old, new: jnp.mean(old.kl(new)),
    )


def test_products_are_those_of_fishers_matrix_as_it_is_defined():
    """E grad log pi grad log pi^T, in float64."""
    features, slopes = rows()
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)), jnp.float32)
    config = TrustRegionConfig(delta=0.03)

    @jax.jit
    def made(weights):
        known = around(softmax(features, slopes), weights)
        products = jax.vmap(known.product)(jnp.eye(6))
        full = full_step(known.product, known.gradient, config)
        return known.gradient, products, full

    found, products, full = made(weights)
    x, w = np.float64(features), np.float64(weights)
    p = np.exp(x @ w) / np.exp(x @ w).sum(1, keepdims=True)
    fisher, gradient = np.zeros((6, 6)), np.zeros(6)
    for n in range(6):
        for a in range(3):
            score = np.outer(x[n], np.eye(3)[a] - p[n]).ravel()
            fisher += p[n, a] * np.outer(score, score) / 6
            gradient += p[n, a] * slopes[n, a] * score / 6
    np.testing.assert_allclose(found, gradient, atol=1e-6)
    np.testing.assert_allclose(products, fisher, atol=1e-6)
    damped = fisher + 0.1 * np.eye(6)
    x = np.linalg.solve(damped, gradient)
    right = np.sqrt(0.06 / (x @ damped @ x)) * x
    np.testing.assert_allclose(full, right, atol=1e-5 * np.abs(right).max())


@pytest.mark.slow
def test_instances_make_the_step_of_their_joint_batch():
    features, slopes = rows(8)
    weights = jnp.zeros((2, 3))
    config = TrustRegionConfig(delta=0.5)

    def one(features, slopes, axis=Axis("data")):
        return step_within(softmax(features, slopes), weights, config, axis)

    alone = jax.jit(partial(one, axis=Axis()))(features, slopes)

    parts = (x.reshape(4, 2, -1) for x in (features, slopes))
    found = jax.jit(jax.vmap(one, axis_name="data"))(*parts)
    for step in np.asarray(found.step):
        np.testing.assert_array_equal(step, found.step[0])
        np.testing.assert_allclose(step, alone.step, atol=1e-6)
    np.testing.assert_allclose(found.metrics["kl"], [alone.metrics["kl"]] * 4, 1e-4)


def test_bad_settings_are_told():
    wrong = TrustRegionConfig(delta=0.0, damping=-1.0, cg_steps=0, max_halvings=-1)
    told = (
        "delta must be above 0, got 0.0; damping must be at least 0, got -1.0; cg_steps"
        " must be at least 1, got 0; max_halvings must be at least 0, got -1"
    )
    with pytest.raises(RefusedError) as refused:
        refuse(wrong)
    assert str(refused.value) == told
