"""A tree of sums against NumPy in float64: what is drawn, and how often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.replay import sum_tree

KEY = random.key(0)


def drawn(tree, num_draws, key=KEY):
    """As a buffer alone draws."""

    @jax.jit
    def draw(tree, key):
        strata_key, fresh_key = jax.random.split(key)
        total, levels = tree.total, sum_tree.num_levels(tree)
        position = sum_tree.strata(strata_key, num_draws) * total
        fresh = jax.random.uniform(fresh_key, (levels, num_draws))
        return sum_tree.find(tree, position, total / num_draws, fresh)

    return np.asarray(draw(tree, key))


def found(masses, positions, width=0.0):
    tree = sum_tree.of(jnp.asarray(masses, jnp.float32))
    fresh = jnp.zeros((sum_tree.num_levels(tree), len(positions)))
    at = jnp.asarray(positions, jnp.float32)
    return np.asarray(sum_tree.find(tree, at, width, fresh)).tolist()


@pytest.mark.parametrize("num_items", [1, 2, 16, 17, 256, 257, 5000])
def test_items_lie_side_by_side(num_items):
    masses = np.random.default_rng(num_items).integers(0, 5, num_items)
    masses[0] = 3
    ends = np.cumsum(masses)
    positions = np.arange(min(ends[-1], 300)) + 0.5
    assert found(masses, positions) == np.searchsorted(ends, positions).tolist()


def test_neither_end_of_the_mass_finds_an_item_without_any():
    """512 strata: the last one's position may round to the whole of the mass."""
    largest = np.nextafter(np.float32(1), np.float32(0))
    position = (np.float32(511) + largest) / np.float32(512)
    assert position == 1.0
    assert found([1.0, 1.0, 0.0], [2 * position, np.inf]) == [1, 1]
    assert found([0.0, 1.0], [0.0]) == [1]
    masses = [0.0, 0.1, 0.0, 0.7, 0.0] * 50
    positions = np.linspace(0.0, 45.0, 2000)
    assert all(masses[i] > 0.0 for i in found(masses, positions))


def test_positions_that_float32_cannot_tell_apart_find_all_items():
    """Beside a mass of 2^24, places within the next 16 are multiples of 2."""
    masses = np.r_[2.0**24, np.zeros(4095), np.full(4096, 1 / 256)]
    tree = sum_tree.of(jnp.asarray(masses, jnp.float32))
    position = jnp.asarray(2.0**24 + 2.0 * (np.arange(512) % 8), jnp.float32)
    fresh = jax.random.uniform(KEY, (sum_tree.num_levels(tree), 512))
    indices = np.asarray(sum_tree.find(tree, position, 1e5, fresh))
    assert np.all(indices >= 4096) and len(set(indices.tolist())) > 400


@pytest.mark.slow
def test_small_masses_among_many_large_ones_are_all_within_reach():
    """Their share is 0.0099, and one float32 has too few digits for each of them."""
    half = 500_000
    masses = np.r_[np.ones(half), np.full(half, 0.01)].astype(np.float32)
    tree = sum_tree.of(jnp.asarray(masses))
    total = half * 1.01
    np.testing.assert_allclose(tree.total, total, rtol=1e-6)
    keys = jax.random.split(KEY, 100)
    indices = np.concatenate([drawn(tree, 10_000, key) for key in keys])
    small = indices[indices >= half]
    assert abs(len(small) - 9_901) < 300
    # Draws with replacement from so many: hardly any comes twice, and all parts have
    # their share.
    assert len(set(small.tolist())) > 0.98 * len(small)
    counts = np.histogram(small, bins=20, range=(half, 2 * half))[0]
    assert np.sum((counts - counts.mean()) ** 2 / counts.mean()) < 43.8  # p = 0.001


def test_sums_are_those_of_the_masses_now():
    """Not of differences, which large masses swallow and repeated indices double."""
    tree = sum_tree.of(jnp.array([1e8, 1.0]))
    tree = sum_tree.write(tree, jnp.array([0]), jnp.array([1.0]))
    assert float(tree.total) == 2.0
    tree = sum_tree.of(jnp.array([1.0, 2.0, 3.0, 4.0]))
    twice = sum_tree.write(tree, jnp.array([1, 1]), jnp.array([5.0, 5.0]))
    assert float(twice.total) == 13.0
    for order in ([5.0, 2.5], [2.5, 5.0]):
        both = sum_tree.write(tree, jnp.array([1, 1]), jnp.array(order))
        np.testing.assert_array_equal(both.levels[0][:4], [1.0, 5.0, 3.0, 4.0])


@pytest.mark.parametrize("num_items", [3, 40, 5000])
def test_every_level_is_the_sum_of_the_one_below(num_items):
    rng = np.random.default_rng(0)
    tree = sum_tree.of(jnp.asarray(rng.random(num_items), jnp.float32))
    masses = np.asarray(tree.levels[0]).copy()
    for _ in range(5):
        index = rng.choice(num_items, 3, replace=False)
        new, accepted = rng.random(3).astype(np.float32), rng.random(3) < 0.5
        tree = sum_tree.write(
            tree, jnp.asarray(index), jnp.asarray(new), jnp.asarray(accepted)
        )
        masses[index[accepted]] = new[accepted]
    np.testing.assert_array_equal(tree.levels[0], masses)
    for below, level in zip(tree.levels, tree.levels[1:], strict=False):
        sums = np.asarray(below).reshape(-1, 16).sum(axis=1)
        np.testing.assert_allclose(level[: len(sums)], sums, rtol=1e-6)
        assert not np.any(level[len(sums) :])


def test_items_are_drawn_by_their_masses_and_once_in_each_stratum():
    masses = np.array([1.0, 2.0, 3.0, 4.0])
    tree = sum_tree.of(jnp.asarray(masses, jnp.float32))
    indices = np.concatenate([drawn(tree, 1000, key) for key in jax.random.split(KEY)])
    counts = np.bincount(indices, minlength=4)
    np.testing.assert_allclose(counts, 200 * masses, atol=2)
    # A thousand equal items, a hundred draws: ten items are a stratum.
    equal = sum_tree.of(jnp.ones(1000))
    np.testing.assert_array_equal(drawn(equal, 100) // 10, np.arange(100))
    assert len(set((drawn(equal, 100) % 10).tolist())) == 10


@pytest.mark.slow
def test_strata_are_kept_among_very_many_items():
    """Nodes smaller than a stratum are drawn in anew; which of them is not."""
    tree = sum_tree.of(jnp.ones(100_000))
    indices = drawn(tree, 50)
    # A stratum has 2,000 items, and the largest node below that 256.
    assert np.all(np.abs(indices // 2000 - np.arange(50)) <= 1)
    inside = indices // 2000 == np.arange(50)
    assert inside.mean() > 0.8


def test_a_written_tree_stays_where_it_is():
    tree = sum_tree.of(jnp.ones(5000))
    write = jax.jit(sum_tree.write, donate_argnums=0)
    arguments = jnp.arange(8), jnp.full(8, 2.0)
    tree = write(tree, *arguments)
    before = {x.unsafe_buffer_pointer() for x in tree.levels}
    tree = write(tree, *arguments)
    assert {x.unsafe_buffer_pointer() for x in tree.levels} == before
