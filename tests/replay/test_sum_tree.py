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


def from_the_left(num_items):
    """The order in which items lie: those of the lower level, then the others."""
    num_nodes = max(-(-(num_items - 1) // 7), 1)
    lowest = 1
    while 8 * lowest + 1 <= 8 * num_nodes:
        lowest = 8 * lowest + 1
    higher = lowest - num_nodes
    return np.r_[higher:num_items, :higher]


@pytest.mark.parametrize("num_items", [1, 2, 8, 9, 15, 64, 65, 5000])
def test_items_lie_side_by_side(num_items):
    masses = np.random.default_rng(num_items).integers(0, 5, num_items)
    masses[0] = 3
    order = from_the_left(num_items)
    ends = np.cumsum(masses[order])
    positions = np.arange(min(ends[-1], 300)) + 0.5
    expected = order[np.searchsorted(ends, positions)]
    assert found(masses, positions) == expected.tolist()


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
    order = from_the_left(8192)
    masses = np.zeros(8192, np.float32)
    masses[order] = np.r_[2.0**24, np.zeros(4095), np.full(4096, 1 / 256)]
    tree = sum_tree.of(jnp.asarray(masses))
    position = jnp.asarray(2.0**24 + 2.0 * (np.arange(512) % 8), jnp.float32)
    fresh = jax.random.uniform(KEY, (sum_tree.num_levels(tree), 512))
    indices = np.asarray(sum_tree.find(tree, position, 1e5, fresh))
    assert np.all(masses[indices] == 1 / 256) and len(set(indices.tolist())) > 400


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
        np.testing.assert_array_equal(both.masses[:4], [1.0, 5.0, 3.0, 4.0])


@pytest.mark.parametrize("num_items", [3, 9, 40, 700, 5000])
def test_every_node_has_the_sum_of_its_children(num_items):
    """Items on two levels too, and levels that are made anew as a whole."""
    rng = np.random.default_rng(0)
    tree = sum_tree.of(jnp.asarray(rng.random(num_items), jnp.float32))
    masses = np.asarray(tree.masses).copy()
    for count in (3, 3, 80, 3):
        index = rng.choice(num_items, min(count, num_items), replace=False)
        new = rng.random(index.size).astype(np.float32)
        accepted = rng.random(index.size) < 0.5
        given = (jnp.asarray(x) for x in (index, new, accepted))
        tree = sum_tree.write(tree, *given)
        masses[index[accepted]] = new[accepted]
        np.testing.assert_array_equal(tree.masses, masses)
        nodes = np.asarray(tree.nodes)
        own = np.r_[np.nan, nodes.reshape(-1)][: len(nodes)]
        np.testing.assert_allclose(nodes.sum(axis=1)[1:], own[1:], rtol=1e-6)
    assert masses.size - num_items <= 6
    assert not np.any(masses[num_items:])
    np.testing.assert_array_equal(tree.mass(jnp.asarray(index)), masses[index])


def test_items_are_drawn_by_their_masses_and_once_in_each_stratum():
    masses = np.array([1.0, 2.0, 3.0, 4.0])
    tree = sum_tree.of(jnp.asarray(masses, jnp.float32))
    indices = np.concatenate([drawn(tree, 1000, key) for key in jax.random.split(KEY)])
    counts = np.bincount(indices, minlength=4)
    np.testing.assert_allclose(counts, 200 * masses, atol=2)
    # 512 equal items, 64 draws: the items of a node are a stratum.
    indices = drawn(sum_tree.of(jnp.ones(512)), 64)
    np.testing.assert_array_equal(indices // 8, np.arange(64))
    assert len(set((indices % 8).tolist())) == 8


@pytest.mark.slow
def test_strata_are_kept_among_very_many_items():
    """Nodes smaller than a stratum are drawn in anew; which of them is not."""
    tree = sum_tree.of(jnp.ones(100_000))
    place = np.argsort(from_the_left(100_000))[drawn(tree, 50)]
    # A stratum has 2,000 items, and the largest node below that 512.
    assert np.all(np.abs(place // 2000 - np.arange(50)) <= 1)
    inside = place // 2000 == np.arange(50)
    assert inside.mean() > 0.8


def test_a_written_tree_stays_where_it_is():
    tree = sum_tree.of(jnp.ones(5000))
    write = jax.jit(sum_tree.write, donate_argnums=0)
    arguments = jnp.arange(8), jnp.full(8, 2.0)
    tree = write(tree, *arguments)
    before = tree.nodes.unsafe_buffer_pointer()
    tree = write(tree, *arguments)
    assert tree.nodes.unsafe_buffer_pointer() == before
