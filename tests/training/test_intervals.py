"""Interquartile means and their intervals."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from jaxrl_par.training.intervals import interquartile_mean, interval


@pytest.mark.parametrize("count", [*range(1, 13), 41])
def test_the_interquartile_mean_is_that_of_the_middle_half(count):
    scores = np.random.default_rng(count).normal(size=(count, 3)) ** 3
    expected = stats.trim_mean(scores, proportiontocut=0.25, axis=0)
    np.testing.assert_allclose(interquartile_mean(scores), expected)
    slow = [sorted(point)[count // 4 : count - count // 4] for point in scores.T]
    np.testing.assert_allclose(expected, [sum(x) / len(x) for x in slow])


def test_one_seed_that_failed_does_not_move_it():
    scores = np.array([[500.0], [500.0], [500.0], [500.0], [-1e9]])
    assert interquartile_mean(scores) == [500]


def test_the_interval_is_that_of_all_draws_with_replacement():
    """4**4 draws can be counted; 2,000 that are drawn come close to them."""
    scores = np.array([[1.0], [2.0], [4.0], [8.0]])
    every = [np.array(draw).ravel() for draw in product(scores, repeat=4)]
    means = [np.sort(draw)[1:3].mean() for draw in every]
    _, low, high = interval(scores)
    assert low == np.percentile(means, 2.5)
    assert abs(high - np.percentile(means, 97.5)) <= 2  # a step of its distribution
    narrow = interval(scores, confidence=0.5)
    assert low <= narrow.low <= narrow.mean <= narrow.high <= high


def test_the_same_scores_give_the_same_interval_at_every_point_of_a_curve():
    scores = np.random.default_rng(0).normal(size=(5, 1))
    curve = np.repeat(scores, 4, axis=1)
    of_curve, of_scores = interval(curve), interval(scores)
    for at_points, at_one in zip(of_curve, of_scores, strict=True):
        np.testing.assert_array_equal(at_points, np.repeat(at_one, 4))


def test_one_run_has_no_interval():
    assert interval(np.full((1, 3), 7.0))[1:] == (None, None)


def test_seeds_are_drawn_and_not_their_episodes():
    """S14: a hundred equal episodes of each seed would give 50 +- 3.1. The middle half
    of five is of three whole runs, and that of three is all of them."""
    mean, low, high = interval(np.array([[0.0], [25.0], [50.0], [75.0], [100.0]]))
    assert mean == 50 and low <= 20 and high >= 80
    assert interquartile_mean(np.array([[0.0], [1], [2], [4], [20]])) == 7 / 3
    assert interquartile_mean(np.array([[0.0], [1.0], [8.0]])) == 3
