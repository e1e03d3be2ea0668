"""Probabilities of exploring policies are exact, and actions follow them."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import exploration, random
from jaxrl_par.exploration import (
    boltzmann,
    boltzmann_probabilities,
    epsilon_greedy,
    epsilon_greedy_probabilities,
    ladder,
)

CHOICES, WEIGHTS = (0.1, 0.01, 0.5), (0.4, 0.3, 0.3)
Q = jnp.array([1.0, 3.0, 2.0, 0.0])
TIED = jnp.array([3.0, -1.0, 3.0, 3.0])


def frequencies(policy, q_values, rate, num_draws=40_000):
    many = jnp.broadcast_to(q_values, (num_draws, *q_values.shape))
    actions = policy(random.key(0), many, rate)
    assert actions.dtype == jnp.int32 and actions.shape == (num_draws,)
    return np.bincount(actions, minlength=q_values.shape[0]) / num_draws


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("q_values", "epsilon", "expected"),
    [
        (Q, 0.2, [0.05, 0.85, 0.05, 0.05]),
        (Q, 0.0, [0, 1, 0, 0]),
        (Q, 1.0, [0.25] * 4),
        (TIED, 0.4, [0.3, 0.1, 0.3, 0.3]),
        (TIED, 0.0, [1 / 3, 0, 1 / 3, 1 / 3]),
        (jnp.zeros(5), 0.3, [0.2] * 5),
    ],
)
def test_epsilon_greedy_explores_all_actions_and_breaks_ties_evenly(
    q_values, epsilon, expected
):
    actual = epsilon_greedy_probabilities(q_values, epsilon)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)
    drawn = frequencies(epsilon_greedy, q_values, epsilon)
    # Four standard deviations at most, and never what has no probability.
    np.testing.assert_allclose(drawn, expected, atol=4 * np.sqrt(0.25 / 40_000))
    assert np.all(drawn[np.array(expected) == 0] == 0)


@pytest.mark.parametrize("rho", [0.0, 1.0, 3.0])
def test_boltzmann_is_the_softmax(rho):
    expected = np.exp(rho * np.asarray(Q)) / np.sum(np.exp(rho * np.asarray(Q)))
    np.testing.assert_allclose(boltzmann_probabilities(Q, rho), expected, rtol=1e-5)
    drawn = frequencies(boltzmann, Q, rho)
    np.testing.assert_allclose(drawn, expected, atol=4 * np.sqrt(0.25 / 40_000))


def test_boltzmann_of_one_two_three():
    actual = boltzmann_probabilities(jnp.array([1.0, 2.0, 3.0]), 1.0)
    np.testing.assert_allclose(actual, [0.090031, 0.244728, 0.665241], atol=1e-6)


def test_impossible_actions_are_never_explored():
    """Neither by their share of epsilon nor at an inverse temperature of 0."""
    masked = jnp.array([-jnp.inf, 3.0, 2.0, -jnp.inf])
    for epsilon, expected in ((0.2, [0, 0.9, 0.1, 0]), (1.0, [0, 0.5, 0.5, 0])):
        actual = epsilon_greedy_probabilities(masked, epsilon)
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
    for rho in (0.0, 2.0):
        weights = np.exp(rho * np.array([-np.inf, 3.0, 2.0, -np.inf])) if rho else 0.0
        expected = weights / np.sum(weights) if rho else [0.0, 0.5, 0.5, 0.0]
        actual = boltzmann_probabilities(masked, rho)
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
    for policy, rate in ((epsilon_greedy, 1.0), (boltzmann, 0.0)):
        assert not np.any(frequencies(policy, masked, rate)[np.array([0, 3])])


@pytest.mark.parametrize(
    "probabilities", [epsilon_greedy_probabilities, boltzmann_probabilities]
)
def test_where_nothing_is_possible_actions_are_equal(probabilities):
    nothing = jnp.full((2, 4), -jnp.inf)
    np.testing.assert_allclose(probabilities(nothing, jnp.array([0.0, 0.5])), 0.25)


@pytest.mark.parametrize("scale", [1e4, 1e20, 1e38, -1e38])
def test_boltzmann_does_not_overflow(scale):
    q_values = scale * jnp.array([1.0, 1.0, 0.0])
    expected = [0.5, 0.5, 0.0] if scale > 0 else [0.0, 0.0, 1.0]
    np.testing.assert_array_equal(boltzmann_probabilities(q_values, 1e30), expected)
    np.testing.assert_allclose(boltzmann_probabilities(q_values, 0.0), 1 / 3)
    action = boltzmann(random.key(0), q_values, 1e30)
    assert expected[int(action)] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("probabilities", "draw"),
    [
        (epsilon_greedy_probabilities, epsilon_greedy),
        (boltzmann_probabilities, boltzmann),
    ],
)
def test_each_environment_has_a_rate_of_its_own(probabilities, draw):
    rates = jnp.array([[0.0, 0.5, 1.0], [0.1, 0.7, 0.2]])
    q_values = jax.random.normal(random.key(1), (2, 3, 4))
    many = probabilities(q_values, rates)
    for index in np.ndindex(2, 3):
        one = probabilities(q_values[index], float(rates[index]))
        np.testing.assert_allclose(many[index], one, rtol=1e-6)
    np.testing.assert_allclose(many.sum(-1), 1.0, rtol=1e-6)
    keys = jax.random.split(random.key(2), 4000)
    actions = jax.vmap(lambda key: draw(key, q_values, rates))(keys)
    drawn = np.mean(np.asarray(actions)[..., None] == np.arange(4), axis=0)
    np.testing.assert_allclose(drawn, many, atol=4 * np.sqrt(0.25 / 4000))
    # Environments draw apart.
    alike = draw(random.key(3), jnp.zeros((1000, 2)), jnp.ones(1000))
    assert 400 < int(alike.sum()) < 600


def test_any_ten_in_a_row_of_the_papers_ladder_have_its_shares():
    rates = np.asarray(ladder(200, CHOICES, WEIGHTS))
    for start in range(190):
        block = rates[start : start + 10]
        counts = [np.sum(block == np.float32(choice)) for choice in CHOICES]
        assert counts == [4, 3, 3]
    np.testing.assert_array_equal(rates[:3], np.float32(CHOICES))


@pytest.mark.parametrize("seed", range(5))
def test_the_shares_of_a_ladder_hold_in_every_block(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 8))
    weights = tuple(rng.random(size))
    rates = np.asarray(ladder(150, tuple(map(float, range(size))), weights))
    seen = np.cumsum(rates[:, None] == np.arange(size), axis=0)
    off = seen - np.arange(1, 151)[:, None] * np.array(weights) / sum(weights)
    off = np.concatenate([np.zeros((1, size)), off])
    assert np.abs(off).max() < 1
    assert (off.max(0) - off.min(0)).max() < 2


@pytest.mark.parametrize("tenths", [(1, 1, 7), (1, 4, 1), (1, 3, 6), (4, 3, 3)])
def test_a_ladder_breaks_ties_as_exact_numbers_do(tenths):
    """Of equals the earlier one, which rounding errors would not keep to."""
    due = [Fraction(x, sum(tenths)) for x in tenths]
    expected = []
    for i in range(40):
        behind = [(i + 1) * x - expected.count(c) for c, x in enumerate(due)]
        expected.append(behind.index(max(behind)))
    actual = ladder(40, (0.0, 1.0, 2.0), tuple(x / 10 for x in tenths))
    np.testing.assert_array_equal(actual, expected)


def test_a_ladder_goes_on_where_a_shorter_one_ends():
    long = ladder(50, CHOICES, WEIGHTS)
    np.testing.assert_array_equal(ladder(7, CHOICES, WEIGHTS), long[:7])
    np.testing.assert_array_equal(ladder(50, CHOICES, (4.0, 3.0, 3.0)), long)
    assert ladder(1, CHOICES, WEIGHTS).shape == (1,)
    only = np.float32([0.01] * 9)
    np.testing.assert_array_equal(ladder(9, CHOICES, (0.0, 1.0, 0.0)), only)


def test_the_choices_of_a_ladder_may_be_traced():
    actual = jax.jit(lambda x: ladder(12, x, WEIGHTS))(jnp.array(CHOICES))
    np.testing.assert_array_equal(actual, ladder(12, CHOICES, WEIGHTS))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.5, 0.5), "one weight, got 3 choices"),
        ((0.5, -0.1, 0.6), "0 or more, and one above"),
        ((0.0, 0.0, 0.0), "0 or more, and one above"),
        ((float("nan"), 1.0, 1.0), "0 or more, and one above"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        ladder(4, CHOICES, weights)


def test_the_geometric_ladder_has_a_rung_for_each_environment():
    """Fact sheet of Ape-X, N = 8; one alone explores as the first of many."""
    expected = [0.4, 0.16, 0.064, 0.0256, 0.01024, 0.004096, 0.0016384, 0.00065536]
    rungs = exploration.geometric_ladder(8)
    np.testing.assert_allclose(rungs, expected, rtol=1e-6)
    np.testing.assert_allclose(exploration.geometric_ladder(1), [0.4], rtol=1e-6)


def test_infinite_and_huge_values_have_probabilities():
    q_values = jnp.array([[np.inf, 1.0, np.inf], [3e38, -3e38, -np.inf]])
    for rho, expected in (
        (0.0, [[1 / 3] * 3, [0.5, 0.5, 0.0]]),
        (1.0, [[0.5, 0.0, 0.5], [1.0, 0.0, 0.0]]),
    ):
        found = boltzmann_probabilities(q_values, rho)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    half = boltzmann_probabilities(q_values.astype(jnp.bfloat16), 1.0)
    assert half.dtype == jnp.float32
