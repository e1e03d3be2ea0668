"""A ring of items against a queue of Python's."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.replay import ring

KEY = random.key(0)


def items(start, count):
    """Numbered items of two leaves."""
    numbers = jnp.arange(start, start + count)
    return {"id": numbers, "rows": numbers[:, None] * jnp.ones(3)}


def held(replay):
    """Numbers of the items that can be drawn."""
    drawn = jax.jit(ring.sample, static_argnums=2)(replay, KEY, 4000)
    np.testing.assert_array_equal(drawn["rows"], drawn["id"][:, None] * np.ones(3))
    return sorted(set(np.asarray(drawn["id"]).tolist()))


def test_it_holds_the_newest_items():
    replay, queue = ring.empty(items(0, 4), 12), deque(maxlen=12)
    add = jax.jit(ring.add)
    for start in range(100, 132, 4):
        replay = add(replay, items(start, 4))
        queue.extend(range(start, start + 4))
        assert held(replay) == sorted(queue)
        assert int(replay.size) == len(queue)


def test_every_item_is_drawn_as_often_as_every_other():
    replay = ring.empty(items(0, 5), 20)
    for start in range(0, 15, 5):
        replay = ring.add(replay, items(start, 5))
    num_draws = 60_000
    drawn = ring.sample(replay, KEY, num_draws)["id"]
    counts = np.bincount(np.asarray(drawn), minlength=15)
    assert len(counts) == 15
    expected = num_draws / 15
    # Chi-squared with 14 degrees of freedom is below 36 in 99.9 % of draws.
    assert np.sum((counts - expected) ** 2 / expected) < 36
    other = ring.sample(replay, random.key(1), num_draws)["id"]
    assert not np.array_equal(drawn, other)


def test_a_donated_buffer_is_written_where_it_is():
    replay = ring.empty(items(0, 2), 64)
    add = jax.jit(ring.add, donate_argnums=0)
    replay = add(replay, items(0, 2))
    before = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(replay.items)]
    replay = add(replay, items(2, 2))
    after = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(replay.items)]
    assert before == after


@pytest.mark.parametrize("capacity", [0, 3, 10])
def test_a_capacity_that_does_not_fit_is_refused(capacity):
    with pytest.raises(ValueError, match=f"multiple of the 4 items.*got {capacity}"):
        ring.empty(items(0, 4), capacity)


def test_items_of_another_kind_are_refused():
    replay = ring.empty(items(0, 4), 8)
    with pytest.raises(ValueError, match="3 items do not divide the capacity, 8"):
        ring.add(replay, items(0, 3))
    wide = items(0, 4) | {"rows": jnp.zeros((4, 5))}
    with pytest.raises(ValueError, match=r"items are float32\[3\], got float32\[5\]"):
        ring.add(replay, wide)
    half = items(0, 4) | {"rows": jnp.zeros((4, 3), jnp.float16)}
    with pytest.raises(ValueError, match=r"got float16\[3\]"):
        ring.add(replay, half)


def test_an_item_that_was_overwritten_has_another_generation():
    """Also where the ring was written exactly once around, or more often."""
    replay, slots = ring.empty(items(0, 2), 4), jnp.arange(4)
    for writes in range(1, 12):
        replay = ring.add(replay, items(2 * writes, 2))
        expected = [(writes + 1) // 2] * 2 + [writes // 2] * 2
        assert np.asarray(replay.generation(slots)).tolist() == expected
