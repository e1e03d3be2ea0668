"""One state, many writers at once: nothing is lost that was promised to be kept."""

import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_par.bridge.shared import Shared, Snapshot


@st.composite
def written(draw):
    """(what was read, what was learned from it, what is there meanwhile)"""
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    some = st.one_of(floats, st.sampled_from([0.0, -0.0, 1e-45, np.nan]))
    rows = draw(st.lists(st.tuples(some, some, st.booleans()), min_size=1, max_size=5))
    old, new, others = zip(*rows, strict=True)
    old, new = np.array(old, np.float32), np.array(new, np.float32)
    now = np.where(others, old + np.float32(1), old)
    return old, new, now.astype(np.float32)


def bits(x):
    return np.asarray(x).view(np.uint32)


@given(written())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_nobody_else_wrote_is_exact_and_the_rest_is_added(rows):
    old, new, now = rows
    shared = Shared(now)
    raced = shared.write(Snapshot(old, [np.append(old, np.float32(0))]), new)
    after = shared.read().state
    alone = bits(now) == bits(old)
    assert raced == (not alone.all())
    np.testing.assert_array_equal(bits(after)[alone], bits(new)[alone])
    changed = bits(new) != bits(old)
    added = np.where(changed, now + (new - old), now)
    np.testing.assert_array_equal(after[~alone], added[~alone])


def in_threads(count, work):
    """Runs work(0) .. work(count - 1) at the same time."""
    workers = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def test_only_what_changed_is_written():
    """Who changes other elements never disturbs the others (Hogwild's sparse problems):
    the result is exact, without a lock and in any order."""
    shared = Shared(np.zeros(40_000, np.float32))

    def work(mine):
        for _ in range(100):
            old = shared.read()
            new = old.state.copy()
            new[mine::4] += 1
            shared.write(old, new)

    in_threads(4, work)
    np.testing.assert_array_equal(shared.read().state, 100)


def test_who_writes_in_turn_loses_nothing():
    shared = Shared((np.zeros(5, np.float32), np.int32(0)))
    for _ in range(7):
        old = shared.read()
        assert not shared.write(old, (old.state[0] + 2, old.state[1] + 1))
    assert shared.lost() == 0
    np.testing.assert_array_equal(shared.read().state[0], 14)
    assert shared.lost() == 0


def test_writes_that_overwrite_others_are_counted_as_lost(monkeypatch):
    """Two writers that meet between look and write, which numpy alone decides."""
    shared = Shared(np.zeros(3, np.float32))
    old = shared.read()
    meet, copyto = threading.Barrier(2), np.copyto

    def late(*arguments, **options):
        meet.wait(10)
        copyto(*arguments, **options)

    monkeypatch.setattr(np, "copyto", late)
    in_threads(2, lambda i: shared.write(old, old.state + np.float32(i + 1)))
    assert shared.lost() == 1
    assert shared.lost() == 0


def test_a_copy_shares_no_memory_with_the_state():
    start = np.zeros(1000, np.float32)
    shared = Shared((start, jnp.zeros(1000)))
    for leaf in (start, *shared.read().state):
        assert not any(np.shares_memory(leaf, x) for x in shared._arrays)
    shared.write(shared.read(), (start + 1, start + 2))
    assert start.sum() == 0


class Slow(np.ndarray):
    """What is learned, but it takes long to copy: others come in between."""

    def __array_function__(self, *arguments):
        time.sleep(0.05)
        return super().__array_function__(*arguments)


def test_no_count_is_lost():
    """Integers are exact, though four write at the same time."""
    shared = Shared(np.zeros(1, np.int32))

    def work(_):
        old = shared.read()
        shared.write(old, (old.state + 1).view(Slow))

    in_threads(4, work)
    assert shared.read().state == 4


def test_a_state_that_cannot_be_added_is_refused():
    with pytest.raises(ValueError, match=r"bool cannot be: state\['ok'\]"):
        Shared({"ok": np.array(True), "x": np.zeros(2)})
