"""Trajectories against those of counter and clock, computed by hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import rollout
from jaxrl_par.testing import probes
from jaxrl_par.types import Agent, Info


class NoState(NamedTuple):
    params: tuple = ()


def scripted():
    """Acts by the row that it sees; its memory counts the steps that it took."""

    def act(params, carry, step, key):
        action = ((step.obs[:, 1] // 2) % 2).astype(jnp.int32)
        return action, carry + 1, {"seen": step.obs}

    return Agent(
        init=lambda key, step: NoState(),
        initial_carry=lambda num_envs: jnp.zeros(num_envs, jnp.int32),
        act=act,
        grad=lambda state, batch, key, axis: ((), Info({})),
        apply=lambda state, grads, metrics: state,
        greedy=act,
    )


def unroll_twice(env, length):
    agent = scripted()

    @jax.jit
    def run(key):
        workers = rollout.start(agent, env, key)
        workers, first, episodes = rollout.unroll(agent, env, (), workers, key, length)
        workers, second, _ = rollout.unroll(agent, env, (), workers, key, length)
        return workers, first, second, episodes

    return jax.tree.map(np.asarray, run(jax.random.key(0)))


def test_rows_of_counter_are_those_computed_by_hand():
    workers, first, second, _ = unroll_twice(probes.counter(2, length=3), 6)
    position = np.arange(13)
    action = (position // 2) % 2
    time = position % 4
    reward = np.where(time == 3, 0.0, position + 0.5 * action)
    #             the first episode terminates, the second one is cut
    discount = np.array([1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 0, 0])
    for start, trajectory in ((0, first), (6, second)):
        shown, acted = slice(start, start + 7), slice(start, start + 6)
        for b in range(2):
            steps = jax.tree.map(lambda x, b=b: x[:, b], trajectory.steps)
            expected = np.stack([time, position], 1)[shown]
            np.testing.assert_array_equal(steps.obs, expected)
            np.testing.assert_array_equal(steps.first, (time == 0)[shown])
            np.testing.assert_array_equal(steps.last, (time == 3)[shown])
            np.testing.assert_array_equal(trajectory.action[:, b], action[acted])
            np.testing.assert_array_equal(trajectory.reward[:, b], reward[acted])
            np.testing.assert_array_equal(trajectory.discount[:, b], discount[acted])
        np.testing.assert_array_equal(
            trajectory.extras["seen"], trajectory.steps.obs[:-1]
        )
        np.testing.assert_array_equal(trajectory.carry, [start, start])
    np.testing.assert_array_equal(workers.carry, [12, 12])
    np.testing.assert_array_equal(workers.step.obs, second.steps.obs[-1])


def test_rows_of_clock_stay_with_their_environment():
    num_envs, length = 3, 8
    _, first, second, _ = unroll_twice(probes.clock(num_envs), length)
    for start, trajectory in ((0, first), (length, second)):
        for b in range(num_envs):
            position = np.arange(start, start + length + 1)
            last = position % (b + 2) == b + 1
            obs = np.stack([np.full(length + 1, b), position], 1)
            np.testing.assert_array_equal(trajectory.steps.obs[:, b], obs)
            np.testing.assert_array_equal(trajectory.steps.last[:, b], last)
            reward = np.where(last, 0.0, b + position / 1024)[:-1]
            np.testing.assert_array_equal(trajectory.reward[:, b], reward)
            discount = ~(last[:-1] | last[1:])
            np.testing.assert_array_equal(trajectory.discount[:, b], discount)


def test_episodes_are_those_that_ended():
    *_, episodes = unroll_twice(probes.clock(3), 5)
    # Steps 1..5 of environment b are last where t % (b + 2) == b + 1.
    ends = [(b, t) for b in range(3) for t in range(1, 6) if t % (b + 2) == b + 1]
    assert episodes.return_.count == episodes.length.count == len(ends)
    assert episodes.length.total == sum(b + 1 for b, _ in ends)
    returns = [sum(b + row / 1024 for row in range(t - b - 1, t)) for b, t in ends]
    assert episodes.return_.total == pytest.approx(sum(returns), rel=1e-6)


def whole(env, length):
    run = jax.jit(lambda key: rollout.whole_episodes(scripted(), env, (), key, length))
    return jax.tree.map(np.asarray, run(jax.random.key(0)))


def test_whole_episodes_are_one_of_each_environment():
    num_envs, length = 4, 9
    trajectory, episodes = whole(probes.clock(num_envs), length)
    assert episodes.return_.count == episodes.length.count == num_envs
    assert episodes.length.total == sum(b + 1 for b in range(num_envs))
    for b in range(num_envs):
        time = np.arange(length + 1)
        over = time > b
        np.testing.assert_array_equal(trajectory.steps.last[:, b], over)
        np.testing.assert_array_equal(trajectory.steps.first[:, b], time == 0)
        reward = np.where(over, 0.0, b + time / 1024)[:-1]
        np.testing.assert_array_equal(trajectory.reward[:, b], reward)
        discount = np.where(time[:-1] < b, 1, 0)
        np.testing.assert_array_equal(trajectory.discount[:, b], discount)
    total = sum((b + 1) * b + b * (b + 1) / 2048 for b in range(num_envs))
    assert episodes.return_.total == pytest.approx(total, rel=1e-6)


def test_whole_episodes_that_are_too_long_are_cut():
    trajectory, episodes = whole(probes.clock(4), 2)
    assert episodes.length.total == 1 + 2 + 2 + 2
    # As by a time limit: the last observation is there to bootstrap from.
    np.testing.assert_array_equal(trajectory.steps.last[2], [True, True, False, False])
    np.testing.assert_array_equal(trajectory.discount[1], [0, 0, 1, 1])


def test_each_part_has_its_share_of_the_memory():
    agent = scripted()._replace(initial_carry=lambda num_envs: jnp.arange(num_envs))
    parts = [rollout.initial_carry(agent, 2, i, num_parts=3).tolist() for i in range(3)]
    assert parts == [[0, 1], [2, 3], [4, 5]]
    assert rollout.initial_carry(agent, 2).tolist() == [0, 1]


def test_wrong_arguments_are_rejected():
    env = probes.counter(2)
    workers = rollout.start(scripted(), env, jax.random.key(0))
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        rollout.unroll(scripted(), env, (), workers, jax.random.key(0), 0)
    bare = env._replace(episode=None)
    with pytest.raises(ValueError, match="episode_statistics"):
        rollout.unroll(scripted(), bare, (), workers, jax.random.key(0), 1)
