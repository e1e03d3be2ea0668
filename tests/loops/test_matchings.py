"""Pairs that learners average in: whole matchings, which all draw alike."""

from collections import Counter
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.loops.matchings import is_due, matchings, meeting_key, partner_of
from jaxrl_par.types import Count


@pytest.mark.parametrize("size", range(1, 10))
def test_each_pair_meets_in_just_one_of_the_matchings(size):
    table = matchings(size)
    everyone = np.arange(size)
    met = Counter()
    for partner in table:
        assert (partner[partner] == everyone).all()  # each is its partner's partner
        assert (partner == everyone).sum() == size % 2  # one rests where they are odd
        met.update({(i, int(j)) for i, j in enumerate(partner) if i < j})
    assert met == Counter(combinations(range(size), 2))


def test_a_matching_keeps_the_mean_which_partners_drawn_apart_do_not():
    x = np.array([0.0, 3.0, 6.0])
    apart = (x + x[[1, 0, 0]]) / 2
    assert apart.tolist() == [1.5, 1.5, 3.0] and apart.mean() == 2
    together = {tuple((x + x[partner]) / 2) for partner in matchings(3)}
    assert together == {(1.5, 1.5, 6.0), (3.0, 3.0, 3.0), (0.0, 4.5, 4.5)}
    assert {np.mean(x) for x in together} == {3.0}


def test_rounds_have_keys_of_their_own():
    root = random.key(0)
    keys = [meeting_key(root, Count.zero().add(n)) for n in (0, 1, 999_999, 1_000_000)]
    drawn = {float(jax.random.uniform(key)) for key in keys}
    assert len(drawn) == 4


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_partner_is_another_learner_if_there_is_one(size, ring):
    keys = jax.random.split(jax.random.key(0), 200)
    learner = jnp.int32(size - 1)
    found = Counter(
        np.asarray(
            jax.vmap(lambda k: partner_of(k, learner, size, ring))(keys)
        ).tolist()
    )
    others = set(range(size)) - {size - 1} if size > 1 else {0}
    if ring and size == 5:
        others = {0, 3}
    assert set(found) == others
    assert min(found.values()) > 200 / len(others) / 2


def test_a_round_is_due_at_each_multiple_of_the_interval():
    for interval in (1, 3, 7, 1000):
        for number in (0, 3, 21, 999_999, 1_000_000, 3_000_000, 21_000_007):
            count = Count.zero().add(number)
            assert bool(is_due(count, interval)) == (number % interval == 0)
