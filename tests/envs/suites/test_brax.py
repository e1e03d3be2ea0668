"""brax's environments as streams, against brax's own functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from following import compare, starts_afresh, streamed

from jaxrl_par import envs, random
from jaxrl_par.envs.suites import from_brax, physics
from jaxrl_par.errors import RefusedError
from jaxrl_par.testing import check_environment

brax = pytest.importorskip("brax.envs")

pytestmark = pytest.mark.slow
TASK, LIMIT = "inverted_pendulum", 12


@pytest.fixture(scope="module")
def pendulum():
    """It falls within some steps where it is pushed at random."""
    return brax.get_environment(TASK, backend="positional")


def test_the_stream_is_what_brax_computes(pendulum):
    env = from_brax(pendulum, 3, LIMIT)

    def reset(key):
        state = pendulum.reset(jax.random.key_data(key))
        return state, state.obs

    def step(state, action, key):
        state = pendulum.step(state, action)
        return state, state.obs, state.reward, state.done

    terminated, cut = compare(env, reset, step, 40, tolerance=1e-4)
    assert terminated + cut > 3 and cut


def test_it_keeps_the_contract(pendulum):
    check_environment(from_brax(pendulum, 4, 60), 100)


def test_made_by_name_it_has_the_parameters_of_its_class():
    env = envs.make(f"brax::{TASK}", 2, backend="spring", episode_length=7)
    assert env.name == f"brax::{TASK}" and env.max_episode_steps == 7
    with pytest.raises(RefusedError, match=r"did you mean 'backend'"):
        envs.make(f"brax::{TASK}", 2, backnd="spring")
    with pytest.raises(RefusedError, match="episode_length must be at least 1, got 0"):
        envs.make(f"brax::{TASK}", 2, episode_length=0)


def test_observations_by_name_and_a_limit_without_an_end():
    fast = brax.get_environment("fast", obs_mode="dict_state", asymmetric_obs=True)
    env = from_brax(fast, 2, episode_length=3)
    assert env.name == "Fast" and env.max_episode_steps == 3
    assert {*env.observation_spec} == {"state", "privileged_state"}
    steps, rewards, discounts, _ = streamed(env, jnp.ones((8, 2, 1)), random.key(0))
    last = np.arange(9) % 4 == 3
    np.testing.assert_array_equal(steps.last[:, 0], last)
    np.testing.assert_array_equal(discounts[:, 0] == 0, last[:-1])
    assert rewards[~last[:-1]].all() and not steps.obs["state"][4].any()


def test_what_brax_wraps_is_refused():
    for wrapped in (brax.create("fast"), brax.create("fast", auto_reset=False)):
        with pytest.raises(RefusedError, match=r"^(AutoReset|Episode)Wrapper is"):
            from_brax(wrapped, 2)
    assert from_brax(brax.create("fast").unwrapped, 2).num_envs == 2


def test_nothing_of_an_episode_is_left_in_the_next_one(pendulum):
    """Trap S10, in all leaves of the state, `info` and `metrics` included."""
    raw = physics.raw(pendulum, 5, 1)
    assert starts_afresh(from_brax(pendulum, 2, 5), raw, 12, tolerance=1e-5) >= 4
