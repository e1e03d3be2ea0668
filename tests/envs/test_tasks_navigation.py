"""Bodies that move to goals, against the same in NumPy; a task for each episode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.envs.tasks.episodes import episodes
from jaxrl_par.envs.tasks.goal_velocity import goal_velocity
from jaxrl_par.envs.tasks.navigation import navigation
from jaxrl_par.errors import RefusedError


def played(env, actions, key=random.key(0)):
    """(observations [T + 1, B, ...], rewards, discounts, lasts [T, B])"""

    def step(env_state, inputs):
        action, key = inputs
        env_state, step, reward, discount = env.step(env_state, action, key)
        return env_state, (step.obs, reward, discount, step.last)

    def play(key):
        env_state, first = env.reset(key)
        keys = jax.random.split(key, len(actions))
        _, (obs, *others) = jax.lax.scan(step, env_state, (actions, keys))
        return jnp.concatenate([first.obs[None], obs]), *others

    return [np.asarray(x) for x in jax.jit(play)(key)]


def test_a_point_moves_by_a_tenth_and_pays_the_distance_that_is_left():
    tasks = navigation(6)
    goal = jnp.array([0.2, -0.1])
    env = tasks.at(tasks.env.default_params.replace(goal=goal), 2)
    actions = np.array([[[1.0, -0.5], [3.0, -9.0]]] * 6, np.float32)
    obs, reward, discount, last = played(env, jnp.array(actions))
    position = np.zeros((2, 2))
    for t in range(2):
        position = position + 0.1 * np.clip(actions[t], -1.0, 1.0)
        np.testing.assert_allclose(obs[t + 1], position, rtol=1e-5)
        distance = np.linalg.norm(position - np.asarray(goal), axis=1)
        np.testing.assert_allclose(reward[t], -distance, atol=1e-6)
    # The first is there after two steps, which ends its episode; the other one is cut.
    np.testing.assert_array_equal(last[:, 0], [0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(discount[:3, 0], [1, 0, 0])
    np.testing.assert_array_equal(last[:, 1], [0, 0, 0, 0, 0, 1])
    assert discount[5, 1] == 1


def test_a_cart_with_a_pendulum_follows_its_equations():
    tasks = goal_velocity(50)
    env = tasks.at(tasks.env.default_params.replace(goal=jnp.float32(1.5)), 1)
    actions = np.sin(np.arange(50, dtype=np.float32))[:, None, None] + 0.5
    obs, reward, _, last = played(env, jnp.array(actions))
    v, angle, spin = obs[0, 0, 0], np.arctan2(obs[0, 0, 1], obs[0, 0, 2]), obs[0, 0, 3]
    assert v == 0 and 0 < abs(angle) < 0.05
    for t in range(50):
        push = np.clip(actions[t, 0, 0], -1.0, 1.0)
        speeding = 3.0 * push - v
        turning = -9.81 * np.sin(angle) - 0.5 * spin - speeding * np.cos(angle)
        v, spin = v + 0.05 * speeding, spin + 0.05 * turning
        angle = angle + 0.05 * spin
        right = [v, np.sin(angle), np.cos(angle), spin]
        np.testing.assert_allclose(obs[t + 1, 0], right, atol=1e-4)
        costs = 0.05 * push**2 + 0.05 * (1 - np.cos(angle))
        np.testing.assert_allclose(reward[t, 0], -abs(v - 1.5) - costs, atol=1e-4)
    np.testing.assert_array_equal(last[:, 0], np.arange(50) == 49)


@pytest.mark.parametrize(
    ("tasks", "low", "high"),
    [(navigation(), [-0.5, -0.5], [0.5, 0.5]), (goal_velocity(), 0.0, 2.0)],
    ids=["navigation", "goal_velocity"],
)
def test_goals_are_uniform(tasks, low, high):
    goals = jax.vmap(tasks.draw)(jax.random.split(random.key(1), 4000)).goal
    low, high = np.array(low), np.array(high)
    assert np.all(goals >= low) and np.all(goals <= high)
    np.testing.assert_allclose(np.mean(goals, 0), (low + high) / 2, atol=0.04)
    std = (high - low) / np.sqrt(12)
    np.testing.assert_allclose(np.std(goals, 0), std, rtol=0.05)


def test_each_episode_is_in_a_task_of_its_own():
    env = episodes(navigation(3), 4)
    still = jnp.zeros((12, 4, 2))
    _, reward, _, last = played(env, still)
    # Who stands still is paid the distance of the goal, in each step of an episode.
    distances = -reward.reshape(3, 4, 4)
    np.testing.assert_array_equal(last.reshape(3, 4, 4)[:, 2], True)
    np.testing.assert_array_equal(distances[:, 3], 0.0)
    for t in (1, 2):
        np.testing.assert_allclose(distances[:, t], distances[:, 0], rtol=1e-6)
    assert len(set(distances[:, 0].ravel().tolist())) == 12
    assert np.all(distances[:, 0] < 0.5 * np.sqrt(2))


def test_no_length_is_refused():
    for family in (navigation, goal_velocity):
        with pytest.raises(RefusedError, match="length must be at least 1, got 0"):
            family(0)
