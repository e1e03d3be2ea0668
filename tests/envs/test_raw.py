"""Streams of a transition that is written by hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.envs.raw import Raw, from_raw
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import check_environment
from jaxrl_par.types import Box, Discrete


class _Walk(NamedTuple):
    time: int
    start: float
    info: dict


def walk(end: int | None = None, limit: int | None = None, cuts: int | None = None):
    """Pays 1 a step and ends after `end`. Shows (time, a number drawn at the start).

    Its info counts `steps`, as a limit does, and keeps the last action. Resets hold
    Python numbers, which are weakly typed.
    """

    def shown(state):
        return jnp.stack([jnp.asarray(state.time, jnp.float32), state.start])

    def reset(key):
        info = {"steps": 0, "last_action": 0}
        state = _Walk(0, jax.random.uniform(key), info)
        return state, shown(state)

    def step(state, action, key):
        info = {"steps": state.info["steps"] + 2, "last_action": action}
        state = _Walk(state.time + 1, state.start, info)
        ended = state.time == end if end else False
        return state, shown(state), 1, ended, state.time == cuts if cuts else False

    return Raw(reset, step, Box((2,), low=0.0), Discrete(2), limit)


def followed(env, num_steps, actions=None):
    """(steps [T+1], states, rewards, discounts [T]) of environment 0."""
    if actions is None:
        actions = jnp.zeros((num_steps, env.num_envs), jnp.int32)
    keys = jax.random.split(jax.random.key(1), num_steps)

    def advance(now, inputs):
        state, step, reward, discount = env.step(now, *inputs)
        return state, (step, state, reward, discount)

    now, first = env.reset(jax.random.key(0))
    _, (steps, *rows) = jax.lax.scan(advance, now, (actions, keys))
    steps = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, steps)
    return jax.device_get((steps, *rows))


@pytest.mark.parametrize(
    ("end", "limit", "cuts", "last_discount"),
    [(3, 9, None, 0), (None, 3, None, 1), (None, None, 3, 1), (3, None, 3, 0)],
)
def test_an_episode_ends_in_each_way(end, limit, cuts, last_discount):
    env = from_raw(walk(end, limit, cuts), 4, "walk")
    check_environment(env, 12)
    steps, _, rewards, discounts = followed(env, 8)
    np.testing.assert_array_equal(steps.last[:, 0], np.arange(9) % 4 == 3)
    np.testing.assert_array_equal(steps.obs[:, 0, 0], np.arange(9) % 4)
    np.testing.assert_array_equal(rewards[:, 0], [1, 1, 1, 0] * 2)
    np.testing.assert_array_equal(discounts[:, 0], [1, 1, last_discount, 0] * 2)
    assert env.max_episode_steps == limit


def test_an_end_at_the_limit_is_an_end():
    # Reward 1, gamma 0.9, next value 10: the target is 1, and not 10.
    _, _, rewards, discounts = followed(from_raw(walk(end=3, limit=3), 1, "walk"), 3)
    assert rewards[2, 0] + 0.9 * discounts[2, 0] * 10.0 == 1.0


def test_a_limit_counts_for_itself():
    # The environment's own `steps` are 10 after five of the stream.
    steps, *_ = followed(from_raw(walk(limit=10), 1, "walk"), 33)
    np.testing.assert_array_equal(np.flatnonzero(steps.last[:, 0]), [10, 21, 32])


def test_wrong_arguments_are_refused():
    with pytest.raises(RefusedError, match="num_envs must be at least 1, got 0"):
        from_raw(walk(), 0, "walk")
    with pytest.raises(RefusedError, match="max_episode_steps must be at least 1"):
        from_raw(walk(limit=0), 1, "walk")
