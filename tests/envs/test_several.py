"""Several tasks as one environment: what is shown, done and paid in each lane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import envs, random
from jaxrl_par.envs.several import several
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import probes
from jaxrl_par.types import Box, Discrete, Masked

GAMES = ("Breakout-MinAtar", "Asterix-MinAtar", "SpaceInvaders-MinAtar")


def counters(name, num_envs):
    """Two tasks: the second one's actions are three, and pay nothing else."""
    env = probes.counter(num_envs)
    if name == "one":
        return env
    return env._replace(name=name, action_spec=Discrete(3), max_episode_steps=9)


@pytest.mark.slow
def test_lanes_are_those_of_the_tasks_alone():
    """What is shown, paid and counted, for the actions of their lanes."""
    env = several(counters, "one+two", 5)
    state, step = env.reset(random.key(0))
    alone = [counters(x, n) for x, n in (("one", 3), ("two", 2))]
    lanes = (slice(0, 3), slice(3, 5))
    states = [x.reset(random.key(0))[0] for x in alone]
    assert env.max_episode_steps == max(x.max_episode_steps for x in alone)
    for t in range(6):
        action = jnp.array([t % 2, 2, 1, 1, 0], jnp.int32)
        state, step, reward, discount = env.step(state, action, random.key(t))
        for i, (task, own) in enumerate(zip(alone, lanes, strict=True)):
            # The first task has no action 2, and does its last one.
            done = jnp.minimum(action[own], task.action_spec.num_values - 1)
            states[i], seen, paid, follows = task.step(states[i], done, random.key(t))
            np.testing.assert_array_equal(step.obs.obs[own], seen.obs)
            np.testing.assert_array_equal(step.obs.task[own], i)
            np.testing.assert_array_equal(step.last[own], seen.last)
            np.testing.assert_array_equal(reward[own], paid)
            np.testing.assert_array_equal(discount[own], follows)
            np.testing.assert_array_equal(
                env.episode(state).return_[own], task.episode(states[i]).return_
            )
    np.testing.assert_array_equal(step.obs.allowed[:, 2], [0, 0, 0, 1, 1])


def test_tasks_draw_for_themselves():
    """Two of the same kind begin in other states."""
    env = several(lambda name, n: probes.memory(n)._replace(name=name), "a+b", 40)
    obs = env.reset(random.key(0))[1].obs.obs
    assert not np.array_equal(obs[:20], obs[20:])


def test_fewer_environments_than_tasks_have_the_same_specs():
    one, many = (several(counters, "one+two", n) for n in (1, 4))
    _, step = one.reset(random.key(0))
    assert step.obs.obs.shape == (1, 2) and step.obs.task.tolist() == [0]
    assert one.action_spec == many.action_spec == Discrete(3)
    leaves = [jax.tree.leaves(x.observation_spec) for x in (one, many)]
    assert [str(x) for x in leaves[0]] == [str(x) for x in leaves[1]]


@pytest.mark.slow
def test_games_are_padded_to_the_most_channels_and_actions():
    env = envs.make("+".join(GAMES), 6)
    shown, task, allowed = env.observation_spec
    assert (shown.shape, shown.dtype) == ((10, 10, 6), np.float32)
    assert task == Discrete(3) and allowed.shape == (5,)
    _, step = env.reset(random.key(0))
    channels = step.obs.obs.any(axis=(1, 2)).sum(axis=1)
    assert step.obs.obs.shape == (6, 10, 10, 6) and channels.min() > 0
    assert not step.obs.obs[:4, ..., 4:].any()
    assert step.obs.allowed.sum(axis=1).tolist() == [3, 3, 5, 5, 4, 4]
    own = step.obs.own(envs.make(GAMES[0], 1).observation_spec)
    assert own.shape == (6, 10, 10, 4)


def test_what_cannot_be_one_network_is_refused():
    def other(name, num_envs):
        env = counters("one", num_envs)
        masked = Masked(Box((2,)), Box((3,), np.dtype(bool), 0.0, 1.0))
        spec = {"square": Box((2, 2)), "masked": masked}.get(name)
        action = Box((1,)) if name == "box" else env.action_spec
        spec = env.observation_spec if spec is None else spec
        return env._replace(name=name, observation_spec=spec, action_spec=action)

    with pytest.raises(RefusedError, match=r"last axis alone: one has .*square has"):
        several(other, "one+square", 2)
    with pytest.raises(RefusedError, match="without a mask: masked has Masked"):
        several(other, "masked+one", 2)
    with pytest.raises(RefusedError, match="choose one of some actions: box has Box"):
        several(other, "one+box", 2)
    with pytest.raises(RefusedError, match=r"must be another one, got one\+one"):
        several(other, "one+one", 2)
    with pytest.raises(RefusedError, match="did you mean 'Breakout-MinAtar'"):
        envs.make("Asterix-MinAtar+Breakot-MinAtar", 2)
    with pytest.raises(RefusedError, match="parameters are of one environment"):
        envs.make("Asterix-MinAtar+Breakout-MinAtar", 2, max_steps_in_episode=3)
