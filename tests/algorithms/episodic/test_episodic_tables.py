"""Tables of episodic control: known numbers, traps, and a slow table in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nearness import assert_near

from jaxrl_par import random
from jaxrl_par.algorithms.episodic import reading
from jaxrl_par.algorithms.episodic.table import Table, empty, nearest, touched
from jaxrl_par.algorithms.episodic.writing import Entries, best, towards, written
from jaxrl_par.errors import RefusedError

DELTA = 1e-3


write = jax.jit(written, static_argnums=2)
TOWARDS = towards(0.1)


def put(table, key, action, value, rule=best, rows=4):
    """Rows written at once, and some that are none: so many tests share a shape."""
    more = max(min(rows, table.values.shape[1]) - len(value), 0)
    there = np.arange(len(value) + more) < len(value)
    given = (np.asarray(key, np.float32), np.asarray(action, np.int32))
    given = (*given, np.asarray(value, np.float32))
    padded = (np.pad(x, [(0, more)] + [(0, 0)] * (x.ndim - 1)) for x in given)
    return write(table, Entries(*map(jnp.asarray, padded), jnp.asarray(there)), rule)


@partial(jax.jit, static_argnums=2)
def read(table, queries, k):
    """(slots, MFEC's values, NEC's weights, NEC's values)"""
    found = nearest(table, queries, k)
    shares = reading.weights(table.keys, queries, found, DELTA)
    values = reading.weighted(table.keys, table.values, queries, found, DELTA)
    return found.slot, reading.averages(table, queries, found), shares, values


@partial(jax.jit, static_argnums=2)
def touch(table, queries, k):
    return touched(table, nearest(table, queries, k))


def filled(keys, values, capacity=8, num_actions=2, action=0):
    """A table with these entries of one action, in this order."""
    table = empty(num_actions, capacity, len(keys[0]))
    return put(table, keys, np.full(len(keys), action), values)


def test_the_kernel_weighs_by_inverse_distance():
    """Check 4 of the reference."""
    table = filled([(0, 0), (1, 0), (0, 2)], [1, 2, 3])
    slots, _, shares, values = read(table, np.zeros((1, 2), np.float32), 3)
    assert slots[:, 0].tolist() == [[0, 1, 2]]
    expected = [0.998753, 0.000998, 0.000250]
    np.testing.assert_allclose(shares[0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(values[0, 0], 1.001497, atol=1e-6)


def test_distances_of_long_keys_are_those_of_differences():
    """Trap P18: by a product of matrices they move in steps of 0.0078."""
    query = np.full((1, 64), 30, np.float32)
    keys = query + np.array([[0.005], [0.01], [-0.02]], np.float32)
    # Far more that look the same to the product than there are candidates.
    crowd = query + np.linspace(0.03, 0.04, 60, dtype=np.float32)[:, None]
    crowded = np.concatenate([crowd, keys])
    table = filled(crowded, [*range(10, 70), 1, 2, 3], 80, num_actions=1)
    queries = np.concatenate([query, crowd[:5]])
    slots, averages, _, values = read(table, queries, 3)
    assert slots[0].tolist() == [[60, 61, 62]]
    np.testing.assert_allclose(values[0], 1.3773, atol=1e-3)
    # A key finds itself, and is written into its own slot.
    np.testing.assert_allclose(averages[:, 0], [2, 10, 11, 12, 13, 14])
    table = put(table, crowded, np.zeros(63), np.full(63, 99))
    assert table.count.tolist() == [63] and table.values[0, 62] == 99


def test_slots_without_an_entry_are_never_near():
    """Trap P19."""
    table = filled([(3, 4)], [5])
    _, averages, shares, values = read(table, np.zeros((1, 2), np.float32), 3)
    # The second action has none: it is worth 0.
    np.testing.assert_array_equal(averages, [[5, 0]])
    np.testing.assert_allclose(values, [[5, 0]], rtol=1e-6)
    np.testing.assert_allclose(shares, [[[1, 0, 0], [0, 0, 0]]], rtol=1e-6)


class TestLeastRecentlyUsed:
    """Trap P20: capacity 2; write A, write B, read A, write C."""

    def after(self, table, reads=True):
        table = put(table, [(1, 0)], [0], [1])
        table = put(table, [(0, 1)], [0], [2])
        table = touch(table, jnp.float32([[1, 0]]), 1) if reads else table
        return put(table, [(1, 1)], [0], [3])

    def test_the_one_that_was_read_stays(self):
        assert self.after(empty(1, 2, 2)).values.tolist() == [[1, 3]]
        assert self.after(empty(1, 2, 2), reads=False).values.tolist() == [[3, 2]]

    def test_a_new_entry_was_used_now(self):
        table = self.after(empty(1, 2, 2))
        assert table.stamp.tolist() == [[3, 4]] and int(table.clock) == 4

    def test_the_clock_goes_on_where_one_of_float32_stands_still(self):
        late = empty(1, 2, 2)._replace(clock=jnp.int32(2**24))
        assert self.after(late).values.tolist() == [[1, 3]]
        assert int(self.after(late).clock) == 2**24 + 4


class TestOneBatch:
    """Trap P21: several writes to one slot."""

    def test_a_new_key_that_comes_twice_is_one_entry(self):
        for values in ([3, 7], [7, 3]):
            given = [(1, 2), (1, 2)], [0, 0], values
            table = put(empty(2, 8, 2), *given)
            assert table.count.tolist() == [1, 0] and table.values[0, 0] == 7
            # NEC: their mean.
            table = put(empty(2, 8, 2), *given, TOWARDS)
            assert table.count.tolist() == [1, 0] and table.values[0, 0] == 5

    def test_two_equal_targets_count_as_in_sequence(self):
        table = filled([(1, 2)], [0])
        together = put(table, [(1, 2), (1, 2)], [0, 0], [1, 1], TOWARDS)
        np.testing.assert_allclose(together.values[0, 0], 0.19, rtol=1e-6)
        assert together.count.tolist() == [1, 0]

    def test_a_key_with_minus_zero_is_that_with_zero(self):
        table = put(empty(2, 8, 2), [(0, 1), (-0.0, 1), (5, 5)], [0] * 3, [1, 2, 3])
        assert table.values[0, :3].tolist() == [2, 3, 0]

    def test_what_the_batch_writes_is_not_evicted_by_it(self):
        table = filled([(i, i) for i in range(4)], [1, 2, 3, 4])
        table = put(table, [(i, i) for i in range(4, 8)], [0] * 4, [5, 6, 7, 8])
        # The oldest is written again beside new ones.
        table = put(table, [(9, 9), (0, 0)], [0, 0], [9, 0])
        assert table.values[0].tolist() == [1, 9, 3, 4, 5, 6, 7, 8]

    def test_what_is_no_number_is_not_written(self):
        key = [(0, 1), (np.nan, 0), (2, 2), (3, 3)]
        table = put(empty(2, 8, 2), key, [0, 0, 1, 1], [1, 2, np.nan, np.inf])
        assert table.count.tolist() == [1, 0]
        assert np.isfinite(table.keys).all() and np.isfinite(table.values).all()

    def test_a_table_smaller_than_a_batch_is_refused(self):
        with pytest.raises(RefusedError, match=r"at least the 5 rows .* got 4"):
            put(empty(2, 4, 2), np.zeros((5, 2)), np.zeros(5), np.zeros(5))


def test_bad_sizes_are_refused_with_their_numbers():
    with pytest.raises(RefusedError, match="k must be at most the 4 entries, got 5"):
        nearest(empty(1, 4, 2), jnp.zeros((1, 2)), 5)
    with pytest.raises(RefusedError, match="capacity must be at least 1, got 0"):
        empty(1, 0, 2)
    with pytest.raises(RefusedError, match="below 536870912 for 4 actions"):
        empty(4, 2**29, 2)


class Slow:
    """A table as lists, with loops."""

    def __init__(self, num_actions, capacity):
        self.keys = [[None] * capacity for _ in range(num_actions)]
        self.values = [[0.0] * capacity for _ in range(num_actions)]
        self.stamp = [[0] * capacity for _ in range(num_actions)]
        self.clock = 0

    def near(self, query, action, k):
        """Slots of the nearest, of equals the lower."""
        there = [i for i, x in enumerate(self.keys[action]) if x is not None]
        return sorted(there, key=lambda i: (self.squared(query, action, i), i))[:k]

    def squared(self, query, action, slot):
        key = self.keys[action][slot]
        return sum((a - b) ** 2 for a, b in zip(query, key, strict=True))

    def mfec(self, query, action, k):
        slots = self.near(query, action, k)
        for i in slots:
            if self.keys[action][i] == query:
                return self.values[action][i]
        return np.mean([self.values[action][i] for i in slots]) if slots else 0.0

    def nec(self, query, action, k):
        slots = self.near(query, action, k)
        kernel = [1 / (self.squared(query, action, i) + DELTA) for i in slots]
        values = [self.values[action][i] for i in slots]
        return np.dot(kernel, values) / sum(kernel) if slots else 0.0

    def touch(self, queries, k):
        self.clock += 1
        for query in queries:
            for action in range(len(self.keys)):
                for i in self.near(query, action, k):
                    self.stamp[action][i] = self.clock

    def write(self, rows, rule):
        self.clock += 1
        groups = {}
        for key, action, value in rows:
            groups.setdefault((action, key), []).append(value)
        new = []
        for (action, key), values in groups.items():
            if key in self.keys[action]:
                i = self.keys[action].index(key)
                self.stamp[action][i] = self.clock
                self.values[action][i] = rule(self.values[action][i], values)
            else:
                new.append((action, key, rule(None, values)))
        for action, key, value in new:
            oldest = min(self.stamp[action])
            i = self.stamp[action].index(oldest)
            self.keys[action][i], self.values[action][i] = key, value
            self.stamp[action][i] = self.clock


def slow_best(old, values):
    return max(values) if old is None else max(old, *values)


def slow_towards(old, values):
    mean = sum(values) / len(values)
    return mean if old is None else old + (1 - 0.9 ** len(values)) * (mean - old)


@pytest.mark.parametrize(
    ("rule", "slow_rule"),
    [(best, slow_best), (TOWARDS, slow_towards)],
    ids=["best", "towards"],
)
def test_a_table_is_the_slow_one_over_random_reads_and_writes(rule, slow_rule):
    """Keys on a grid of 5 x 5, so that many are written again, and distances tie."""
    rng = np.random.default_rng(0)
    table, slow = empty(2, 8, 2), Slow(2, 8)
    for _ in range(100):
        key = rng.integers(0, 5, (4, 2)).astype(np.float32)
        action = rng.integers(0, 2, 4).astype(np.int32)
        value = rng.integers(-9, 9, 4).astype(np.float32)
        rows = [(tuple(map(float, x)), int(a), float(v))
                for x, a, v in zip(key, action, value, strict=True)]  # fmt: skip
        table = put(table, key, action, value, rule)
        slow.write(rows, slow_rule)
        queries = rng.integers(0, 5, (1, 2)).astype(np.float32)
        asked = [tuple(map(float, x)) for x in queries]
        _, averages, _, weighted = read(table, queries, 3)
        for values, of in ((averages, slow.mfec), (weighted, slow.nec)):
            expected = [[of(x, a, 3) for a in range(2)] for x in asked]
            assert_near(values, np.array(expected))
        table = touch(table, queries, 3)
        slow.touch(asked, 3)
        assert table.stamp.tolist() == slow.stamp
    assert int(table.clock) == slow.clock
    assert_near(table.values, np.array(slow.values))
    assert np.asarray(table.keys).tolist() == [list(map(list, x)) for x in slow.keys]


@pytest.mark.parametrize("scale", [1e-3, pytest.param(1.0, marks=pytest.mark.slow)])
def test_the_nearest_of_a_crowd_are_found(scale):
    """Two clusters far from zero and from each other, as narrow as their distances are
    rounded in a product: those of float64, also among members of a mapped axis."""
    key = random.key(0)
    noise = scale * jax.random.normal(key, (2, 3, 200, 8))
    keys = 30.0 * jnp.where(jnp.arange(200) % 2 == 0, 1.0, -1.0)[:, None] + noise
    stamp = jnp.ones((2, 3, 200), jnp.int32)
    tables = Table(keys, jnp.zeros((2, 3, 200)), stamp, jnp.ones(2, jnp.int32))
    queries = keys[:, 0, :6] + scale
    found = jax.jit(jax.vmap(partial(nearest, k=5)))(tables, queries)
    exact = (
        np.asarray(keys, np.float64)[:, None] - np.asarray(queries)[:, :, None, None]
    )
    exact = np.sum(exact**2, axis=-1)
    np.testing.assert_array_equal(found.slot, np.argsort(exact, axis=-1)[..., :5])


@pytest.mark.slow
def test_gradients_flow_to_the_query_the_keys_and_the_values():
    """Against differences, and to the nearest alone."""
    table = filled([(0, 0), (1, 0), (0, 2), (9, 9)], [1, 2, 3, 4])
    query = jnp.float32([[0.4, 0.3]])

    def value(query, keys, values):
        found = nearest(table._replace(keys=keys, values=values), query, 3)
        return reading.weighted(keys, values, query, found, 0.1)[0, 0]

    given = (query, table.keys, table.values)
    grads = jax.jit(jax.grad(value, argnums=(0, 1, 2)))(*given)
    evaluate = jax.jit(value)
    for number, grad in enumerate(grads):
        expected = np.zeros(grad.size)
        for i in range(grad.size):
            step = jnp.zeros(grad.size).at[i].set(5e-3).reshape(grad.shape)
            sides = [
                evaluate(*(x + s * step if n == number else x
                           for n, x in enumerate(given)))
                for s in (1, -1)
            ]  # fmt: skip
            expected[i] = (sides[0] - sides[1]) / 1e-2
        assert_near(grad.reshape(-1), expected, 2e-2)
    assert not np.any(grads[1][0, 3:]) and not np.any(grads[2][0, 3:])
