"""Recorded data alone: every window of it, and nothing of what is acted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.axis import Axis
from jaxrl_par.replay import Windows, recorded
from jaxrl_par.types import TimeStep, Trajectory

KEY = random.key(0)


def unroll(first, rows, lanes, dtype=np.float32):
    """Rewards are numbers from `first` on, one for each row."""
    reward = np.arange(first, first + rows * lanes, dtype=np.float32)
    reward = reward.reshape(rows, lanes)
    flags = np.zeros((rows + 1, lanes), bool)
    obs = np.zeros((rows + 1, lanes, 2), dtype)
    ones = np.ones_like(reward)
    return Trajectory(TimeStep(obs, flags, flags), reward, reward, ones, {}, ())


@pytest.mark.slow
def test_all_of_it_is_drawn_and_what_is_acted_is_not():
    given, acted = unroll(0, 5, 2), unroll(100, 4, 3)
    buffer = recorded(given, 64, Windows(1))
    data = buffer.init(jax.eval_shape(lambda: acted))
    assert bool(buffer.ready(data))
    same = buffer.add(data, (), jax.tree.map(jnp.asarray, acted))
    assert all(map(np.array_equal, jax.tree.leaves(data), jax.tree.leaves(same)))
    batch, _ = buffer.sample(data, None, KEY, Axis())
    assert {*np.asarray(batch.reward).ravel()} == {*range(10)}
    assert buffer.batch_rows and buffer.batch_rows(4) == 64


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (unroll(0, 0, 2), "at least 1 rows for windows of 1, got 0"),
        (unroll(0, 5, 2, np.uint8), "have observations uint8"),
    ],
)
def test_no_data_and_those_of_another_task_are_refused(given, message):
    buffer = recorded(given, 4, Windows(1))
    with pytest.raises(ValueError, match=message):
        buffer.init(jax.eval_shape(lambda: unroll(0, 4, 3)))


def test_sizes_are_refused_at_once():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        recorded(unroll(0, 5, 2), 0)
