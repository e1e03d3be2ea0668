"""Windows: their rows, how often each is trained, and the carry before them."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.replay import Windows
from jaxrl_par.types import TimeStep, Trajectory

ROWS, LANES = 6, 2


def unroll(ended=(), recorded=True):
    """Observations tell lane and time; carries tell the time that they are before."""
    lanes = 100.0 * np.arange(LANES, dtype=np.float32)
    steps = jnp.asarray(lanes + np.arange(ROWS + 1, dtype=np.float32)[:, None])
    last = jnp.asarray(np.isin(np.arange(ROWS + 1), list(ended)))[:, None]
    last = jnp.broadcast_to(last, steps.shape)
    first = jnp.roll(last, 1, axis=0)
    rows = steps[:-1]
    memory = {"time": rows}
    extras = {"log_prob": rows} | ({"carry": memory} if recorded else {})
    reward = jnp.where(last[:-1], 0.0, rows)
    discount = jnp.where(last[:-1], 0.0, 1.0)
    start = {"time": rows[0]}
    return Trajectory(
        TimeStep(steps, first, last), rows, reward, discount, extras, start
    )


def cut(windows, trajectory, window):
    """Those windows of both lanes, [L, LANES]."""
    windows.refuse(trajectory)
    items = windows.kept(trajectory)
    number = jnp.full(LANES, window)
    return jax.jit(windows.cut)(items, jnp.arange(LANES), number)


def test_the_whole_unroll_comes_back():
    whole = unroll(ended=(2,), recorded=False)
    jax.tree.map(np.testing.assert_array_equal, cut(Windows(), whole, 0), whole)


@pytest.mark.parametrize("window", [0, 1, 2])
def test_a_window_has_its_rows_and_the_carry_before_the_first(window):
    batch = cut(Windows(2, burn_in=2), unroll(), window)
    assert batch.reward.shape == (4, LANES)
    if window == 0:
        np.testing.assert_array_equal(batch.extras["padded"][:, 0], [1, 1, 0, 0])
        np.testing.assert_array_equal(batch.steps.obs[2:, 0], [0, 1, 2])
        np.testing.assert_array_equal(batch.carry["time"], batch.steps.obs[2])
    else:
        begin = 2 * window - 2
        assert not np.any(batch.extras["padded"])
        np.testing.assert_array_equal(batch.steps.obs[:, 0], begin + np.arange(5))
        np.testing.assert_array_equal(batch.carry["time"], batch.steps.obs[0])
    np.testing.assert_array_equal(batch.action, batch.steps.obs[:-1])
    np.testing.assert_array_equal(batch.extras["log_prob"], batch.action)
    np.testing.assert_array_equal(batch.steps.obs[:, 1] - batch.steps.obs[:, 0], 100)


def test_what_is_looked_ahead_to_ends_with_the_unroll():
    """As at a time limit: the final observation is there to bootstrap from."""
    windows = Windows(1, lookahead=2, constant_carry=True)
    whole = unroll(recorded=False)
    inside, end = cut(windows, whole, 3), cut(windows, whole, 5)
    np.testing.assert_array_equal(inside.steps.obs[:, 0], [3, 4, 5, 6])
    assert not np.any(inside.steps.last)
    np.testing.assert_array_equal(end.steps.obs[:, 0], [5, 6, 6, 6])
    np.testing.assert_array_equal(end.steps.last[:, 0], [False, True, True, False])
    np.testing.assert_array_equal(end.steps.first[1:, 0], [False, True, True])
    np.testing.assert_array_equal(end.reward[:, 0], [5, 0, 0])
    np.testing.assert_array_equal(end.discount[:, 0], [1, 0, 0])


@pytest.mark.parametrize(
    "windows",
    [Windows(1, lookahead=2), Windows(2, burn_in=1), Windows(3, 3, 2), Windows(6)],
)
def test_each_row_is_trained_as_often_as_every_other(windows):
    counts = Counter()
    for window in range(windows.each(ROWS)):
        batch = cut(windows, unroll(), window)
        trained = slice(windows.burn_in, windows.burn_in + windows.trained(ROWS))
        counts.update(np.asarray(batch.action[trained, 0]).tolist())
    assert counts == dict.fromkeys(range(ROWS), 1)


def test_a_window_is_refused_where_its_carry_is_not_known():
    shapes = jax.eval_shape(lambda: unroll(recorded=False))
    with pytest.raises(ValueError, match='record it in extras\\["carry"\\]'):
        Windows(2).refuse(shapes)
    Windows(2, constant_carry=True).refuse(shapes)
    Windows(6).refuse(shapes)
    with pytest.raises(ValueError, match="must divide the 6 rows of an unroll, got 4"):
        Windows(4).refuse(shapes)
    with pytest.raises(ValueError, match="burn_in = 2 needs several windows"):
        Windows(6, burn_in=2).refuse(shapes)
    Windows(1, lookahead=5, constant_carry=True).refuse(shapes)
    with pytest.raises(ValueError, match="lookahead must be below the 6 rows"):
        Windows(1, lookahead=6, constant_carry=True).refuse(shapes)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (Windows(0), "length must be at least 1, got 0"),
        (Windows(2, -1), "burn_in must be at least 0, got -1"),
        (Windows(2, 3), "burn_in must be at most length = 2, got 3"),
        (Windows(2, lookahead=-1), "lookahead must be at least 0, got -1"),
    ],
)
def test_bad_lengths_are_refused(windows, message):
    assert windows.problems() == [message]
