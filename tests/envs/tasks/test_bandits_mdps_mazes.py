"""Families of tasks: how they are drawn, and what happens in one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.envs.tasks.bandits import bernoulli_bandits
from jaxrl_par.envs.tasks.mazes import mazes
from jaxrl_par.envs.tasks.mdps import random_mdps
from jaxrl_par.errors import RefusedError


def drawn(tasks, count):
    keys = jax.random.split(jax.random.key(0), count)
    return jax.jit(jax.vmap(tasks.draw))(keys)


def stepped(env, state, action, task, count):
    """So many steps from one state: (states, rewards)."""
    keys = jax.random.split(jax.random.key(1), count)
    step = jax.vmap(env.step_env, (0, None, None, None))
    _, after, reward, *_ = jax.jit(step)(keys, state, action, task)
    return after, np.asarray(reward)


def test_arms_pay_with_uniform_probabilities_each_its_own():
    chance = np.asarray(drawn(bernoulli_bandits(3), 2000).probabilities)
    assert chance.min() >= 0 and chance.max() <= 1
    np.testing.assert_allclose(chance.mean(axis=0), 0.5, atol=3 * 0.29 / 2000**0.5)
    np.testing.assert_allclose(chance.var(axis=0), 1 / 12, atol=0.006)
    np.testing.assert_allclose(np.corrcoef(chance.T), np.eye(3), atol=0.07)


def test_an_arm_pays_as_often_as_its_probability_says():
    tasks = bernoulli_bandits(3)
    task = tasks.env.default_params.replace(probabilities=jnp.array([0.0, 0.3, 1.0]))
    _, state = tasks.env.reset_env(jax.random.key(0), task)
    paid = [stepped(tasks.env, state, arm, task, 2000)[1].mean() for arm in range(3)]
    assert paid[0] == 0 and paid[2] == 1
    assert abs(paid[1] - 0.3) < 3 * 0.46 / 2000**0.5


def test_rows_of_transitions_are_uniform_and_mean_rewards_normal():
    """Each element of a Dirichlet of S ones has mean 1/S, variance (S-1)/S^2/(S+1)."""
    task = drawn(random_mdps(4, 2, 3), 2000)
    chance, means = np.asarray(task.transitions), np.asarray(task.means)
    np.testing.assert_allclose(chance.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(chance.mean(axis=0), 1 / 4, atol=0.016)
    np.testing.assert_allclose(chance.var(axis=0), 3 / 80, atol=0.006)
    np.testing.assert_allclose(means.mean(axis=0), 1, atol=3.5 / 2000**0.5)
    np.testing.assert_allclose(means.var(axis=0), 1, atol=0.13)
    flat = means.reshape(2000, -1)
    np.testing.assert_allclose(np.corrcoef(flat.T), np.eye(8), atol=0.08)


def test_an_mdp_moves_and_pays_as_its_tables_say():
    tasks = random_mdps(4, 2, 3)
    task = jax.tree.map(lambda x: x[5], drawn(tasks, 6))
    obs, state = tasks.env.reset_env(jax.random.key(0), task)
    np.testing.assert_array_equal(obs, [1, 0, 0, 0])
    state = state._replace(place=jnp.int32(2))
    after, reward = stepped(tasks.env, state, 1, task, 4000)
    often = np.bincount(after.place, minlength=4) / 4000
    chance = np.asarray(task.transitions)[2, 1]
    assert (np.abs(often - chance) < 3.5 * np.sqrt(chance * (1 - chance) / 4000)).all()
    assert abs(reward.mean() - task.means[2, 1]) < 3 / 4000**0.5
    assert abs(reward.std() - 1) < 0.04
    # What pays says nothing about where it leads.
    assert abs(np.corrcoef(after.place, reward)[0, 1]) < 3 / 4000**0.5


def test_a_maze_ends_at_its_goal_which_is_not_seen():
    tasks = mazes(5)
    goals = np.unique(np.asarray(drawn(tasks, 500).goal), axis=0)
    assert len(goals) == 21  # all cells but the four walls within
    start = jax.random.key(0)
    seen = []
    for goal, ends in (((2, 3), True), ((3, 2), False)):
        task = tasks.env.default_params.replace(goal=jnp.array(goal))
        obs, state = tasks.env.reset_env(start, task)
        _, after, reward, terminated, _ = tasks.env.step_env(start, state, 0, task)
        assert bool(terminated) == ends and float(reward) == 10.0 * ends
        seen.append(obs)
        assert ends or after.pos.tolist() == [2, 3]
    np.testing.assert_array_equal(*seen)
    np.testing.assert_array_equal(seen[0], [1, 0, 1, 0, 0, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: mazes(7), "size of a maze must be 5, 9, 13, ..., got 7"),
        (lambda: random_mdps(0), "num_states must be at least 1, got 0"),
        (lambda: random_mdps(2, 2, 0), "length must be at least 1, got 0"),
    ],
)
def test_families_that_cannot_be_are_refused(make, told):
    with pytest.raises(RefusedError, match=told):
        make()
