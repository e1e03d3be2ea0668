"""Buffers: which rows a batch is of, and that a window is a piece of a stream."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.axis import Axis
from jaxrl_par.replay import Windows, fresh, prioritised, uniform
from jaxrl_par.types import Info, TimeStep, Trajectory

KEY = random.key(0)
LENGTH, LANES = 6, 3


def unroll(number, carry=True):
    """Every leaf says its unroll, lane and time."""
    lanes = 100.0 * number + 10 * np.arange(LANES, dtype=np.float32)
    steps = jnp.asarray(lanes + np.arange(LENGTH + 1)[:, None], jnp.float32)
    flags, rows = steps % 2 == 0, steps[:-1]
    memory = {"rate": jnp.asarray(lanes)} if carry else ()
    return Trajectory(
        TimeStep(steps, flags, flags), rows, rows, rows, {"log_prob": rows}, memory
    )


def filled(buffer, numbers, carry=True):
    data = buffer.init(jax.eval_shape(lambda: unroll(0, carry)))
    add = jax.jit(buffer.add)
    for number in numbers:
        data = add(data, (), unroll(number, carry))
    return data


def unlasting(buffer, numbers):
    """As `filled`, but no row is `last`."""
    data = buffer.init(jax.eval_shape(lambda: unroll(0)))
    for number in numbers:
        given = unroll(number)
        no = jnp.zeros_like(given.steps.last)
        data = buffer.add(
            data, (), given._replace(steps=TimeStep(given.steps.obs, no, no))
        )
    return data


def drawn(buffer, data, key=KEY):
    return jax.jit(lambda data: buffer.sample(data, unroll(9), key, Axis())[0])(data)


def test_what_is_fresh_is_the_newest_trajectory_and_nothing_is_kept():
    buffer, newest = fresh(), unroll(1)
    data = buffer.add(buffer.init(newest), (), newest)
    assert data == () and buffer.ready(data)
    assert buffer.sample(data, newest, KEY, Axis())[0] is newest
    assert buffer.update(data, (), Info({}), Axis()) == ()


def test_a_batch_is_of_windows_of_unrolls():
    buffer = uniform(12, 300, Windows(2, constant_carry=True))
    batch = drawn(buffer, filled(buffer, [1, 2]))
    assert batch.reward.shape == (2, 300)
    first = np.asarray(batch.reward[0])
    np.testing.assert_array_equal(batch.steps.obs, first + np.arange(3)[:, None])
    np.testing.assert_array_equal(batch.steps.last, batch.steps.obs % 2 == 0)
    assert set((first % 10).tolist()) == {0, 2, 4}
    np.testing.assert_array_equal(batch.carry["rate"], first - first % 10)


@pytest.mark.parametrize("make", [uniform, prioritised])
def test_transitions_are_trained_equally_often_and_look_ahead_as_far_as_they_can(make):
    """Windows of three steps of an unroll of six: neither end is trained less."""
    buffer = make(12, 6000, Windows(1, lookahead=2, constant_carry=True))
    batch = drawn(buffer, unlasting(buffer, [1, 2]))
    counts = Counter((np.asarray(batch.reward[0]) % 10).tolist())
    assert all(abs(counts[row] - 1000) < 150 for row in range(LENGTH))


def test_all_lanes_of_the_newest_unrolls_are_drawn():
    buffer = uniform(2 * LANES, 400)
    first = np.asarray(drawn(buffer, filled(buffer, [1, 2, 3])).reward[0])
    assert sorted(set(first.tolist())) == [200, 210, 220, 300, 310, 320]
    other = drawn(buffer, filled(buffer, [1, 2, 3]), random.key(1))
    assert np.any(np.asarray(other.reward[0]) != first)


def test_it_is_ready_when_enough_is_kept():
    buffer = uniform(12, 4, min_size=5)
    ready = [bool(buffer.ready(filled(buffer, range(n)))) for n in range(4)]
    assert ready == [False, False, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"windows": Windows(0)}, "length must be at least 1, got 0"),
        ({"min_size": 7}, "min_size must be at most capacity = 6, got 7"),
        ({"windows": Windows(4)}, "length must divide the 6 rows"),
        ({"capacity": 4}, "multiple of the 3 items"),
    ],
)
@pytest.mark.parametrize("make", [uniform, prioritised])
def test_bad_settings_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        filled(make(**({"capacity": 6, "batch_size": 2} | options)), [])
