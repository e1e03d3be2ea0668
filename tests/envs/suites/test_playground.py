"""Tasks of MuJoCo Playground as streams, against its own functions."""

import jax
import numpy as np
import pytest
from following import compare, starts_afresh

from jaxrl_par import envs
from jaxrl_par.envs.suites import from_playground
from jaxrl_par.envs.suites import playground as adapter
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import check_environment

playground = pytest.importorskip("mujoco_playground")

pytestmark = pytest.mark.slow
TASK = "CartpoleBalance"


def loaded(**config):
    return playground.registry.load(TASK, config_overrides={"impl": "jax"} | config)


def test_the_stream_is_what_playground_computes():
    inner = loaded()
    env = from_playground(inner, 2, episode_length=9)

    def reset(key):
        state = inner.reset(jax.random.key_data(key))
        return state, state.obs

    def step(state, action, key):
        state = inner.step(state, action)
        return state, state.obs, state.reward, state.done

    assert compare(env, reset, step, 24, tolerance=1e-4) == (0, 4)


def test_it_keeps_the_contract():
    env = envs.make(f"playground::{TASK}", 4, episode_length=20)
    assert env.name == f"playground::{TASK}" and env.max_episode_steps == 20
    assert env.observation_spec.shape == (5,) and env.action_spec.shape == (1,)
    check_environment(env, 50)


def test_parameters_are_those_of_the_config():
    env = envs.make(f"playground::{TASK}", 1, episode_length=21, action_repeat=2)
    assert env.max_episode_steps == 11
    with pytest.raises(RefusedError, match="did you mean 'episode_length'"):
        envs.make(f"playground::{TASK}", 1, episode_lenth=3)


def test_tasks_that_need_the_network_have_no_name():
    robots = [*playground.locomotion.ALL_ENVS, *playground.manipulation.ALL_ENVS]
    names = {x.partition("::")[2] for x in envs.names() if x.startswith("playground")}
    assert names == {*playground.dm_control_suite.ALL_ENVS}
    assert names.isdisjoint(robots)
    with pytest.raises(RefusedError, match=r"fetch models .*from_playground takes it"):
        envs.make(f"playground::{robots[0]}", 1)


def test_bounds_of_actions_are_those_of_the_models():
    for task in ("CartpoleBalance", "PendulumSwingup", "ReacherEasy"):
        env = playground.registry.load(task, config_overrides={"impl": "jax"})
        bounds = np.unique(env.mj_model.actuator_ctrlrange)
        np.testing.assert_array_equal(bounds, [-1, 1])


def test_nothing_of_an_episode_is_left_in_the_next_one():
    """Trap S10, in all leaves of the state, `info` and `metrics` included."""
    env = envs.make(f"playground::{TASK}", 2, episode_length=5)
    raw = adapter.raw(TASK, episode_length=5)
    assert starts_afresh(env, raw, 12, tolerance=1e-5) == 4
