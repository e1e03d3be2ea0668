"""Grid worlds of navix as streams, against its own functions."""

import jax
import numpy as np
import pytest
from following import actions_of, compare, starts_afresh, streamed

from jaxrl_par import envs, random
from jaxrl_par.envs.suites import from_navix
from jaxrl_par.envs.suites import navix as adapter
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import check_environment
from jaxrl_par.types import Discrete

navix = pytest.importorskip("navix")

pytestmark = pytest.mark.slow
BALLS = "Navix-Dynamic-Obstacles-5x5-v0"


def own(inner):
    """(reset, step) of navix itself."""

    def reset(key):
        now = inner.reset(jax.random.key_data(key))
        return now, now.observation

    def step(now, action, key):
        now = inner._step(now, action)
        return now, now.observation, now.reward, now.step_type == 2

    return reset, step


@pytest.mark.parametrize("task", [BALLS, "Navix-DoorKey-5x5-v0"])
def test_the_stream_is_what_navix_computes(task):
    inner = navix.make(task, max_steps=9)
    env = from_navix(inner, 4)
    assert env.max_episode_steps == 9 and isinstance(env.action_spec, Discrete)
    terminated, cut = compare(env, *own(inner), 60)
    assert cut and (terminated or task != BALLS)


def test_it_keeps_the_contract():
    for task in (BALLS, "Navix-Empty-Random-6x6-v0"):
        check_environment(envs.make(f"navix::{task}", 4, max_steps=15), 60)


def test_its_numbers_are_within_the_spec():
    """What a locked door shows is beyond all others."""
    largest = {"KeyCorridorS3R2": 254, "LavaGapS5": 10, "Dynamic-Obstacles-5x5": 10}
    for task, most in largest.items():
        env = envs.make(f"navix::Navix-{task}-v0", 2)
        steps, *_ = streamed(env, actions_of(env, 20), random.key(0))
        assert steps.obs.max() == most <= env.observation_spec.high, task
        assert env.observation_spec.bounded == (most == 10)


def test_an_end_at_the_limit_is_an_end_and_a_success():
    """Trap S9. From the corner to the goal of 5 x 5: two steps, a turn, two more."""
    inner = navix.make("Navix-Empty-5x5-v0", max_steps=5)
    names = [x.__name__ for x in inner.action_set]
    path = [names.index(x) for x in ("forward", "forward", "rotate_cw", "forward")]
    path = np.array([*path, names.index("forward")], np.int32)
    for limit in (5, 6):
        env = from_navix(navix.make("Navix-Empty-5x5-v0", max_steps=limit), 1)
        steps, rewards, discounts, _ = streamed(env, path[:, None], random.key(0))
        np.testing.assert_array_equal(steps.last[:, 0], [0, 0, 0, 0, 0, 1])
        np.testing.assert_array_equal(rewards[:, 0], [0, 0, 0, 0, 1])
        assert discounts[-1, 0] == 0
    state, _ = env.reset(random.key(0))
    assert env.episode is not None
    for action in path:
        assert not env.episode(state).told["success_rate"][0]
        state, *_ = env.step(state, np.array([action]), random.key(1))
    assert env.episode(state).told["success_rate"][0] == 1


def test_it_is_drawn():
    env = envs.make("navix::Navix-DoorKey-5x5-v0", 2)
    state, _ = env.reset(random.key(0))
    assert env.draw is not None
    picture = env.draw(state, 1)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and np.ptp(picture)


def test_parameters_are_those_of_its_class():
    first_person = navix.observations.symbolic_first_person
    env = envs.make("navix::Navix-Empty-5x5-v0", 1, observation_fn=first_person)
    assert env.observation_spec.shape == (7, 7, 3)
    with pytest.raises(RefusedError, match="did you mean 'max_steps'"):
        envs.make("navix::Navix-Empty-5x5-v0", 1, max_step=3)


def test_nothing_of_an_episode_is_left_in_the_next_one():
    """Trap S10, in all leaves of the state, its clock and its key included."""
    env = envs.make(f"navix::{BALLS}", 4, max_steps=5)
    assert starts_afresh(env, adapter.raw(BALLS, max_steps=5), 24) >= 16
