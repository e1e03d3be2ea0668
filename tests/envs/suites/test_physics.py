"""Environments with brax's interface, written by hand: no suite is needed for these."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.envs.raw import from_raw
from jaxrl_par.envs.suites import physics
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import check_environment
from jaxrl_par.types import Box

GAMMA, NEXT_VALUE = 0.9, 10.0


class State(NamedTuple):
    obs: Any
    reward: Any
    done: Any
    info: dict
    metrics: dict

    def replace(self, **fields):
        return self._replace(**fields)


class Clock:
    """Shows a number that is drawn at the start, and the time. All its memory is in
    `info`: a counter of steps, by twos as some repeat actions, a key, the last action.
    """

    action_size = 1

    def __init__(self, end=None, pays_change=False):
        self.end, self.pays_change = end, pays_change

    def reset(self, rng):
        rng, draw = jax.random.split(rng)
        obs = {"state": jnp.stack([jax.random.uniform(draw), 0.0])}
        info = {"rng": rng, "steps": jnp.zeros(()), "last_action": jnp.zeros(1)}
        return State(obs, jnp.zeros(()), jnp.zeros(()), info, {"cost": jnp.zeros(())})

    def step(self, state, action):
        cost = jnp.sum((action - state.info["last_action"]) ** 2)
        obs = {"state": state.obs["state"] + jnp.array([0.0, 1.0])}
        done = jnp.where(obs["state"][1] == self.end, 1.0, 0.0)
        state.metrics["cost"] = cost  # in place, as Playground does
        info = state.info | {"last_action": action, "steps": state.info["steps"] + 2}
        reward = -cost if self.pays_change else 1.0
        return state.replace(obs=obs, reward=reward, done=done, info=info)


def made(env, limit, repeat=1, num_envs=2):
    return from_raw(physics.raw(env, limit, repeat), num_envs, "Clock")


def followed(env, actions):
    """(steps [T+1], states, rewards, discounts [T]) of environment 0."""
    keys = jax.random.split(random.key(1), len(actions))

    def advance(now, inputs):
        action, key = inputs
        actions = jnp.full((env.num_envs, 1), action)
        state, step, reward, discount = env.step(now, actions, key)
        return state, (step, state, reward, discount)

    def run(key):
        now, first = env.reset(key)
        _, (steps, *rows) = jax.lax.scan(advance, now, (jnp.asarray(actions), keys))
        steps = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, steps)
        return steps, *rows

    rows = jax.device_get(jax.jit(run)(random.key(0)))
    return jax.tree.map(lambda x: x[:, 0], rows)


def lengths(steps):
    ends = np.flatnonzero(steps.last)
    return np.diff(np.concatenate([[-1], ends])) - 1


@pytest.mark.slow
def test_it_keeps_the_contract():
    check_environment(made(Clock(end=7), 5, num_envs=4), 40)
    check_environment(made(Clock(end=5), 7, num_envs=4), 40)


def test_a_counter_of_its_own_does_not_shorten_the_limit():
    """Trap S10: read from `info`, which counts by twos, a limit of 10 ends after 5."""
    steps, *_ = followed(made(Clock(), 10), np.zeros(33, np.float32))
    np.testing.assert_array_equal(lengths(steps), [10, 10, 10])
    assert made(Clock(), 10).max_episode_steps == 10


def test_no_flag_of_an_end_survives_it():
    steps, _, reward, _ = followed(made(Clock(end=5), 100), np.zeros(20, np.float32))
    np.testing.assert_array_equal(lengths(steps), [5, 5, 5])
    assert reward.sum() == 17


def test_a_start_knows_nothing_of_the_episode_before():
    """Trap S10: the last action is 0 at a start, so that 1 costs 1 there, and not 4."""
    env = made(Clock(end=1, pays_change=True), 100)
    steps, _, reward, _ = followed(env, np.array([-1, 0, 1, 0, 1], np.float32))
    np.testing.assert_array_equal(steps.last, [0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(reward, [-1, 0, -1, 0, -1])


def test_a_reset_state_is_that_of_a_reset():
    """All leaves, `info` and `metrics` included, in their dtypes."""
    env = made(Clock(end=3), 100, num_envs=1)
    key, reset = random.key(4), jax.jit(Clock().reset)
    step = jax.jit(env.step)
    now, shown = env.reset(key)
    for _ in range(4):
        now, shown, *_ = step(now, jnp.ones((1, 1)), key)
    assert bool(shown.first[0])
    _, reset_key = jax.random.split(key, (2, 1))
    fresh = reset(jax.random.key_data(reset_key[0]))
    found = jax.tree.leaves(jax.tree.map(lambda x: x[0], of_state(now)))
    for x, y in zip(found, jax.tree.leaves(fresh), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def of_state(tree):
    """The state of the suite that is somewhere in that of the stream."""
    is_state = lambda x: isinstance(x, State)  # noqa: E731
    return next(filter(is_state, jax.tree.leaves(tree, is_leaf=is_state)))


def test_an_end_at_the_limit_is_an_end():
    """Trap S9: limit 3, an end at 3, reward 1, gamma 0.9, next value 10: target 1."""
    _, _, reward, discount = followed(made(Clock(end=3), 3), np.zeros(3, np.float32))
    assert reward[2] + GAMMA * discount[2] * NEXT_VALUE == 1.0
    _, _, reward, discount = followed(made(Clock(), 3), np.zeros(3, np.float32))
    assert reward[2] + GAMMA * discount[2] * NEXT_VALUE == 10.0


def test_an_action_that_is_repeated_ends_where_the_episode_does():
    """A limit of 10 steps are 4 actions of 3. One that ends at 5 pays 2 in its second
    action, which brax's wrapper would step on, to 3."""
    steps, _, reward, discount = followed(made(Clock(), 10, 3), np.zeros(9, np.float32))
    np.testing.assert_array_equal(lengths(steps), [4, 4])
    np.testing.assert_array_equal(reward, [3, 3, 3, 3, 0, 3, 3, 3, 3])
    steps, _, reward, discount = followed(
        made(Clock(end=5), 100, 3), np.zeros(3, np.float32)
    )
    np.testing.assert_array_equal(reward, [3, 2, 0])
    np.testing.assert_array_equal(discount, [1, 0, 0])
    np.testing.assert_array_equal(steps.obs["state"][:, 1], [0, 3, 5, 0])


def test_specs_are_those_of_what_it_shows():
    env = made(Clock(), None)
    assert env.max_episode_steps is None
    assert {*env.observation_spec} == {"state"}
    assert env.observation_spec["state"].shape == (2,)
    assert isinstance(env.action_spec, Box) and env.action_spec.shape == (1,)
    assert env.action_spec.low == -1 and env.action_spec.high == 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(RefusedError, match="episode_length must be at least 1, got 0"):
        physics.raw(Clock(), 0, 1)
    with pytest.raises(RefusedError, match="action_repeat must be at least 1, got 0"):
        physics.raw(Clock(), 10, 0)
    counting = type("EpisodeWrapper", (), {"__module__": physics.WRAPPERS[0]})()
    counting.env = Clock()
    around = SimpleNamespace(env=counting)
    for env in (counting, around):
        with pytest.raises(RefusedError, match=r"without EpisodeWrapper.*unwrapped"):
            physics.raw(env, 10, 1)
