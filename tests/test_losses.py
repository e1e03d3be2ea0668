"""Losses against their definitions, and what they promise about rows and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_par import losses

LAST = jnp.array([[False, True], [False, False], [True, False]])
X = jnp.array([[1.0, 9.0], [2.0, 3.0], [-7.0, 4.0]])


def test_rows_that_are_last_weigh_nothing_but_are_counted():
    assert float(losses.over_rows(X, LAST)) == pytest.approx(10 / 6)
    assert float(losses.over_rows(X, LAST, "sum")) == pytest.approx(10)
    weights = jax.grad(losses.over_rows)(X, LAST)
    np.testing.assert_allclose(weights, np.where(LAST, 0, 1 / 6), rtol=1e-6)


def test_the_mean_over_devices_is_that_of_the_joint_batch():
    """Although one half has no row that is `last` and the other has two."""
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(4, 8)), jnp.float32)
    last = jnp.zeros((4, 8), bool).at[1, :2].set(True).at[3, 1].set(True)
    halves = [losses.over_rows(x[:, i], last[:, i]) for i in np.split(np.arange(8), 2)]
    np.testing.assert_allclose(np.mean(halves), losses.over_rows(x, last), rtol=1e-5)
    sums = [
        losses.over_rows(x[:, i], last[:, i], "sum") for i in np.split(np.arange(8), 2)
    ]
    np.testing.assert_allclose(sum(sums), losses.over_rows(x, last, "sum"), rtol=1e-5)


def test_a_metric_is_the_mean_of_the_rows_that_count():
    mean = losses.row_mean(X, LAST)
    assert (float(mean.total), float(mean.count)) == (10.0, 4.0)


@pytest.mark.parametrize("garbage", [np.inf, np.nan])
def test_what_stands_in_rows_that_are_last_does_not_matter(garbage):
    spoilt = jnp.where(LAST, garbage, X)
    assert float(losses.over_rows(spoilt, LAST)) == pytest.approx(10 / 6)
    assert float(losses.row_mean(spoilt, LAST).total) == 10.0


def test_clipped_surrogate_is_the_pessimistic_gain():
    ratios = np.array([0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 3.0])
    for advantage in (-2.0, 0.5):
        expected = [
            -min(r * advantage, min(max(r, 0.8), 1.2) * advantage) for r in ratios
        ]
        advantages = jnp.full(ratios.shape, advantage)
        actual = losses.clipped_surrogate(jnp.log(ratios), advantages, 0.2)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.3, 1.0, False),  # gained enough
        (1.3, -1.0, True),
        (0.7, -1.0, False),  # avoided enough
        (0.7, 1.0, True),
        (1.1, 1.0, True),
        (0.9, -1.0, True),
    ],
)
def test_a_clipped_row_has_no_gradient(ratio, advantage, moves):
    def loss(log_ratio):
        return losses.clipped_surrogate(log_ratio[None], jnp.array([advantage]), 0.2)[0]

    gradient = jax.grad(loss)(jnp.log(ratio))
    expected = -ratio * advantage if moves else 0.0
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "loss", "slope"),
    [
        (89.0, 1.0, -1.2, 0.0),
        (89.0, 0.0, 0.0, 0.0),
        (1e4, 2.0, -2.4, 0.0),
        (-1e4, -1.0, 0.8, 0.0),
        (-1e4, 1.0, 0.0, 0.0),
        (20.0, -1.0, np.exp(20.0), np.exp(20.0)),
    ],
)
def test_a_ratio_that_overflows_moves_nothing_where_it_is_clipped(
    log_ratio, advantage, loss, slope
):
    def surrogate(log_ratio):
        return losses.clipped_surrogate(log_ratio, jnp.float32(advantage), 0.2)

    found = jax.value_and_grad(surrogate)(jnp.float32(log_ratio))
    np.testing.assert_allclose(found, (loss, slope), rtol=1e-6)


@pytest.mark.parametrize("clip", [1.0, 1.5])
def test_a_clip_of_one_or_more_bounds_nothing_below(clip):
    log_ratios = jnp.array([-50.0, -1.0, 0.0])
    found = losses.clipped_surrogate(log_ratios, -jnp.ones(3), clip)
    np.testing.assert_allclose(found, np.exp(log_ratios), rtol=1e-6)


def test_the_first_ppo_gradient_is_the_policy_gradient():
    """At ratio 1, where both policies are the same: -A grad log pi."""
    advantages = jnp.array([-3.0, 0.5, 2.0])
    gradient = jax.grad(
        lambda log_ratios: losses.clipped_surrogate(log_ratios, advantages, 0.1).sum()
    )(jnp.zeros(3))
    np.testing.assert_allclose(gradient, -advantages, rtol=1e-6)


def test_clipped_value_loss_is_the_larger_of_two():
    values = jnp.array([1.0, 1.1, 1.5, 1.5, 0.0])
    old = jnp.ones(5)
    targets = jnp.array([2.0, 0.0, 2.0, 0.0, 0.5])
    #        same  inside          moved towards    away      past the target
    errors = [1.0, 1.1, 0.8, 1.5, 0.5]
    actual = losses.clipped_value_loss(values, old, targets, 0.2)
    np.testing.assert_allclose(actual, 0.5 * np.square(errors), rtol=1e-5)


small = st.floats(-10.0, 10.0, width=32)


@settings(max_examples=50)
@given(value=small, old=small, target=small, clip=st.floats(0.1, 5.0))
def test_clipping_values_is_pessimistic_and_changes_nothing_nearby(
    value, old, target, clip
):
    rows = [jnp.array([x], jnp.float32) for x in (value, old, target)]
    clipped = losses.clipped_value_loss(*rows, clip)[0]
    plain = 0.5 * np.square(np.float32(value) - np.float32(target))
    assert clipped >= plain * (1 - 1e-6)
    if abs(value - old) < clip:
        np.testing.assert_allclose(clipped, plain, rtol=1e-4, atol=1e-4)
