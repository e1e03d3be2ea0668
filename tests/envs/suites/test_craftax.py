"""Craftax-Classic and Craftax as streams, against their own functions.

Each program compiles for long on CPU, so that they are few.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from following import compare, starts_afresh

from jaxrl_par import envs, random
from jaxrl_par.envs import drawing
from jaxrl_par.envs.suites import craftax as adapter
from jaxrl_par.envs.suites import from_craftax
from jaxrl_par.errors import RefusedError

pytest.importorskip("craftax")

pytestmark = pytest.mark.slow
CLASSIC, FULL = "Craftax-Classic-Symbolic-v1", "Craftax-Symbolic-v1"
LAVA = 14


@pytest.fixture(scope="module")
def classic():
    from craftax.craftax_env import make_craftax_env_from_name

    return make_craftax_env_from_name(CLASSIC, auto_reset=False)


@pytest.fixture(scope="module")
def parts():
    """The transition of the adapter, with a state that was reset."""
    made = adapter.raw(CLASSIC, max_timesteps=3)
    state, _ = jax.jit(made.reset)(random.key(0))
    return made, state, jax.jit(made.step)


def test_the_stream_is_what_craftax_computes(classic):
    """In bits, with its own time limit in `done`, which the loop takes apart."""
    params = classic.default_params.replace(max_timesteps=4)
    env = from_craftax(classic, 2, params)
    assert env.name == classic.name and env.max_episode_steps == 4

    def reset(key):
        obs, state = classic.reset_env(jax.random.key_data(key), params)
        return state, obs

    def step(state, action, key):
        key = jax.random.key_data(key)
        obs, state, reward, done, _ = classic.step_env(key, state, action, params)
        return state, obs, reward, done & (state.timestep < 4)

    assert compare(env, reset, step, 12) == (0, 4)


def test_death_is_an_end_also_at_the_limit(parts):
    """Trap S9. The stream takes a step that is both for an end."""
    made, state, step = parts
    _, _, _, ended, truncated = step(state, jnp.int32(0), random.key(1))
    assert not ended and not truncated
    at_the_limit = state.replace(timestep=jnp.asarray(2))
    *_, ended, _ = step(at_the_limit, jnp.int32(0), random.key(1))
    assert not ended and made.max_episode_steps == 3
    row, column = state.player_position
    burning = at_the_limit.replace(map=state.map.at[row, column].set(LAVA))
    *_, ended, _ = step(burning, jnp.int32(0), random.key(1))
    assert ended


def test_achievements_are_told(parts):
    made, state, _ = parts
    found = jnp.zeros(22, bool).at[jnp.array([0, 8])].set(True)
    told = made.told(state.replace(achievements=found))
    assert len(told) == 23 and told["achievements"] == 2
    assert told["achieved_collect_wood"] == told["achieved_defeat_zombie"] == 1
    assert sum(told.values()) == 4


def test_the_world_is_drawn(parts):
    made, state, _ = parts
    picture = made.draw(jax.tree.map(np.asarray, state))
    assert picture.shape == (384, 384, 3) and picture.dtype == np.uint8
    row, column = np.asarray(state.player_position) * 6 + 3
    np.testing.assert_array_equal(picture[row, column], drawing.MARK)


def test_parameters_are_those_of_both_its_records():
    made = adapter.raw(CLASSIC, max_timesteps=77, max_zombies=5)
    state, _ = jax.eval_shape(made.reset, random.key(0))
    assert made.max_episode_steps == 77 and state.zombies.health.shape == (5,)
    with pytest.raises(RefusedError, match="did you mean 'max_timesteps'"):
        envs.make(f"craftax::{CLASSIC}", 1, max_timestep=3)


def test_the_full_game_has_its_own_achievements():
    made = adapter.raw(FULL)
    state, obs = jax.eval_shape(made.reset, random.key(0))
    assert made.max_episode_steps == 100_000 and obs.shape == (8268,)
    told = jax.eval_shape(made.told, state)
    assert len(told) == 68 and "achieved_defeat_necromancer" in told


def test_nothing_of_an_episode_is_left_in_the_next_one():
    """Trap S10, in all leaves of the state."""
    env = envs.make(f"craftax::{CLASSIC}", 2, max_timesteps=3)
    assert starts_afresh(env, adapter.raw(CLASSIC, max_timesteps=3), 8) == 4
