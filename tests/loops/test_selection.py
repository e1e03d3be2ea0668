"""Who copies whom, and how what was copied is changed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops.selection import (
    Explore,
    Record,
    number_of,
    p_value,
    t_test,
    tournament,
    truncation,
)
from jaxrl_par.types import Mean


def record(*scores):
    """Each member's scores, oldest first."""
    made = Record.empty(len(scores), 10)
    for turn in range(max(map(len, scores))):
        there = np.array([turn < len(x) for x in scores])
        values = [x[turn] if turn < len(x) else 0.0 for x in scores]
        totals: np.ndarray = np.array(values, np.float32)
        made = made.add(Mean(jnp.asarray(totals), jnp.asarray(there, jnp.float32)))
    return made


def sources(exploit, made, num_keys=50):
    """Whom each member copies, for many keys: [num_keys, P]."""
    keys = jax.random.split(random.key(0), num_keys)
    return np.stack([exploit(key, made) for key in keys])


def test_a_record_keeps_the_latest_scores_and_their_moments():
    made = record(range(13), [4.0], [])
    count, mean, variance = made.moments()
    np.testing.assert_array_equal(count, [10, 1, 0])
    np.testing.assert_allclose(mean, [np.mean(range(3, 13)), 4.0, 0.0])
    np.testing.assert_allclose(variance, [np.var(range(3, 13), ddof=1), 0.0, 0.0])
    again = made.cleared(jnp.array([True, False, False])).add(jnp.full(3, 7.0))
    np.testing.assert_allclose(again.moments()[1], [7.0, 5.5, 7.0])


@pytest.mark.parametrize(
    ("fraction", "size", "number"),
    [(0.3, 50, 15), (0.29, 100, 29), (0.2, 4, 1), (0.2, 8, 2), (0.0, 8, 0)],
)
def test_a_fraction_is_the_nearest_number_of_members(fraction, size, number):
    assert number_of(fraction, size) == number


def test_truncation_replaces_the_worst_by_the_best():
    scores = np.random.default_rng(0).permutation(10).astype(float)
    found = sources(truncation(0.2), record(*scores[:, None]))
    worst, best = np.argsort(scores)[:2], np.argsort(scores)[-2:]
    others = np.setdiff1d(np.arange(10), worst)
    assert np.all(found[:, others] == others)
    assert all(set(found[:, i]) == set(best) for i in worst)


def test_bottom_and_top_share_no_member_and_a_fraction_of_0_is_nobody():
    made = record(*[[float(i)] for i in range(5)])
    found = sources(truncation(0.5), made)
    assert set(found[:, 0]) == set(found[:, 1]) == {3, 4}
    assert np.all(found[:, 2:] == [2, 3, 4])
    assert np.all(sources(truncation(0.0), made) == np.arange(5))


@pytest.mark.parametrize("exploit", [truncation(0.25), tournament(), t_test()])
def test_who_has_no_score_is_neither_copied_nor_replaced(exploit):
    made = record([-900.0, -901.0], [-1100.0, -1101.0], [], [-1300.0, -1301.0])
    found = sources(exploit, made)
    assert np.all(found[:, 2] == 2)
    assert not np.any(found[:, [0, 1, 3]] == 2)
    assert set(found[:, 3]) >= {0}


@pytest.mark.parametrize("exploit", [truncation(0.25), tournament(), t_test()])
def test_what_is_no_number_is_worst(exploit):
    made = record([1.0, 1.0], [np.nan, 2.0], [3.0, 3.0], [2.0, 2.0])
    found = sources(exploit, made)
    assert not np.any(found[:, [0, 2, 3]] == 1)
    assert np.any(found[:, 1] == 2)


@pytest.mark.parametrize("exploit", [truncation(0.5), tournament(), t_test()])
def test_equal_scores_copy_nobody(exploit):
    made = record(*[[500.0, 500.0]] * 4)
    assert np.all(sources(exploit, made) == np.arange(4))


def test_a_tournament_is_against_any_other():
    found = sources(tournament(), record([1.0], [2.0], [3.0]))
    assert set(found[:, 0]) == {1, 2}
    assert set(found[:, 1]) == {1, 2}  # itself, where it met the worse one
    assert set(found[:, 2]) == {2}


@pytest.mark.slow
def test_the_test_is_welchs_and_one_sided():
    low = np.arange(1.0, 11.0)
    high = low + 2.5

    def of(x):
        numbers = np.mean(x), np.var(x, ddof=1), len(x)
        return tuple(jnp.array([y], jnp.float32) for y in numbers)

    np.testing.assert_allclose(p_value(of(high), of(low)), 0.0407, atol=5e-5)
    np.testing.assert_allclose(p_value(of(low), of(high)), 1 - 0.0407, atol=5e-5)
    equal, better = np.full(10, 499.0), np.full(10, 500.0)
    assert np.isnan(p_value(of(equal), of(equal))[0])
    assert float(p_value(of(better), of(equal))[0]) == 0.0
    found = sources(t_test(), record(equal, better))
    assert np.all(found == [1, 1])
    found = sources(t_test(), record(low, high))
    assert np.all(found == [1, 1])
    assert np.all(sources(t_test(0.04), record(low, high)) == [0, 1])


def test_one_score_is_too_few_for_a_test():
    assert np.all(sources(t_test(), record([1.0], [2.0, 2.0])) == [0, 1])


def test_a_change_has_no_bias_in_the_logarithm():
    explore = Explore(1e-9, 1e9)
    changed = explore.changed(random.key(0), jnp.ones(4000))
    np.testing.assert_allclose(np.unique(changed), [1 / 1.2, 1.2], rtol=1e-6)
    assert abs(np.mean(np.log(changed))) < 4 * np.log(1.2) / np.sqrt(4000)


def test_a_discount_is_changed_by_what_it_lacks_to_1():
    explore = Explore(0.5, 0.999, scale="discount")
    changed = np.asarray(explore.changed(random.key(0), jnp.full(100, 0.99)))
    found = set(np.round(changed, 5))
    assert found == set(np.round(np.float32([0.988, 0.991667]), 5))
    values = jnp.full(200, 0.99)
    for key in jax.random.split(random.key(1), 20):
        values = explore.changed(key, values)
    assert np.all((values >= 0.5 - 1e-6) & (values <= 0.999 + 1e-6))
    assert np.mean(values < 0.9) < 0.1


def test_values_are_drawn_anew_within_bounds_where_that_is_asked_for():
    explore = Explore(1e-4, 1e-2, resample=1.0)
    drawn = np.asarray(explore.changed(random.key(0), jnp.zeros(1000)))
    assert drawn.min() < 2e-4 and drawn.max() > 5e-3
    assert np.all((drawn >= 1e-4) & (drawn <= 1e-2))


@pytest.mark.parametrize(
    ("explore", "told"),
    [
        (Explore(1.0, 0.1), "low must be below high, got 1.0 and 0.1"),
        (Explore(0.0, 1.0), "low must be above 0, got 0.0"),
        (Explore(0.5, 1.0, scale="discount"), "high must be below 1, got 1.0"),
        (Explore(0.1, 1.0, factor=1.0), "factor must be above 1, got 1.0"),
        (Explore(0.1, 1.0, resample=2.0), r"resample must be in \[0, 1\], got 2.0"),
    ],
)
def test_bounds_and_factors_out_of_range_are_named(explore, told):

    assert any(re.search(told, line) for line in explore.problems())


@pytest.mark.parametrize("make", [truncation, t_test])
def test_a_share_beyond_1_is_refused(make):
    with pytest.raises(RefusedError, match=r"must be in \[0, 1\], got 1.5"):
        make(1.5)
