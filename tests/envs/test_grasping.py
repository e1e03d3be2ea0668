"""Grasping against its rules by hand, and the script that grasps now and then."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import envs, random
from jaxrl_par.cli import experts
from jaxrl_par.envs.grasping import _HAND, _OBJECT, HIGH, NEAR, STEP, Grasping
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.testing import check_environment
from jaxrl_par.training.recording import record

ENV = Grasping(16)
PARAMS = ENV.default_params
KEY = random.key(0)
COST = np.float32(0.05)
STAY, OPEN, CLOSE, GO_ON, END = 0.0, -1.0, 1.0, -1.0, 1.0
step = jax.jit(ENV.step_env)


def played(place, actions):
    """The last state and reward, and whether the episode was ended by then."""
    state = jax.jit(ENV.reset_env)(KEY, PARAMS)[1]
    state = state._replace(object=jnp.array([*place, 0.0]))
    reward, terminated = 0.0, False
    for action in actions:
        assert not terminated
        given = jnp.asarray(action, jnp.float32)
        _, state, reward, terminated, _ = step(KEY, state, given, PARAMS)
    return state, float(reward), bool(terminated)


DOWN = [(STAY, STAY, -1.0, OPEN, GO_ON)] * 3
GRASP = (STAY, STAY, -1.0, CLOSE, GO_ON)
UP = (STAY, STAY, 1.0, CLOSE, GO_ON)
DONE = (STAY, STAY, 1.0, CLOSE, END)
MIDDLE = (0.5, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "actions", "paid", "held"),
    [
        (MIDDLE, [*DOWN, GRASP, UP, DONE], 1.0, True),
        # Not around the object, or only just.
        ((0.5, 0.5 + NEAR + 0.01), [*DOWN, GRASP, UP, DONE], 0.0, False),
        ((0.5, 0.5 + NEAR - 0.01), [*DOWN, GRASP, UP, DONE], 1.0, True),
        # Too high, the hand closed before, or opened on the way.
        (MIDDLE, [*DOWN, (0, 0, 0, CLOSE, GO_ON), UP, DONE], 0.0, False),
        (MIDDLE, [UP, *[GRASP] * 4, UP, DONE], 0.0, False),
        (MIDDLE, [*DOWN, GRASP, (0, 0, 1, OPEN, GO_ON), UP, DONE], 0.0, False),
        # Not yet lifted.
        (MIDDLE, [*DOWN, GRASP, DONE], 0.0, True),
        # Lifted, and not said.
        (MIDDLE, [*DOWN, GRASP, UP, UP, UP], 0.0, True),
        # Found by a move in the plane, of a quarter of the action.
        ((0.75, 0.3), [(1, -0.8, -1, OPEN, GO_ON), *DOWN, GRASP, UP, DONE], 1.0, True),
    ],
)
def test_only_what_is_held_high_at_the_end_pays(place, actions, paid, held):
    state, reward, terminated = played(place, actions)
    np.testing.assert_allclose(reward, paid - 0.05, atol=1e-6)
    assert bool(state.held) == held
    assert terminated == (actions[-1][-1] == END)
    if held:
        np.testing.assert_array_equal(state.object, state.position)
    else:
        assert float(state.object[2]) == 0.0


def test_the_picture_shows_where_things_are():
    """The middle of each blob, to a hundredth; a lifted object is brighter."""
    state = ENV.reset_env(KEY, PARAMS)[1]
    state = state._replace(object=jnp.array([0.3, 0.7, 0.0]))
    for height, brightest in ((0.0, 128), (1.0, 255)):
        lifted = state._replace(object=state.object.at[2].set(height))
        image, hand = ENV.observation(lifted)
        for channel, place in enumerate((lifted.object, lifted.position)):
            bright = np.asarray(image[..., channel], np.float64)
            where = np.arange(16) / 15
            middle = [bright.sum(1 - axis) @ where / bright.sum() for axis in (0, 1)]
            np.testing.assert_allclose(middle, place[:2], atol=0.01)
        assert 0.75 * brightest < image[..., 0].max() <= brightest
        np.testing.assert_array_equal(hand, [0.0, 1.0])


@pytest.mark.slow
def test_its_stream_keeps_the_contract():
    """Episodes end by an action, or by their limit; objects lie anywhere."""
    check_environment(envs.make("Grasping-16x16", 8), 200)
    env = envs.make("Grasping-8x8", 4, max_steps_in_episode=2)
    check_environment(env, 50)
    assert env.draw is not None
    picture = env.draw(env.reset(KEY)[0], 1)
    colours = {tuple(x) for x in picture.reshape(-1, 3).tolist()}
    assert picture.dtype == np.uint8 and {_OBJECT, _HAND} <= colours


@pytest.mark.slow
def test_a_time_limit_is_no_end():
    env = envs.make("Grasping-8x8", 2, max_steps_in_episode=3)
    state, _ = env.reset(KEY)
    for n in range(3):
        action = jnp.zeros((2, 5)).at[:, 3:].set(-1.0)
        state, shown, reward, discount = env.step(state, action, random.key(n))
    assert np.all(shown.last) and np.all(discount == 1.0) and np.all(reward == -COST)


@pytest.mark.slow
def test_the_script_succeeds_now_and_then_and_shows_every_kind_of_end():
    name = "Grasping-16x16"
    recording = record(experts.of(name), (), envs.make(name, 32), 4000, random.key(1))
    rows = recording.trajectory
    ends = rows.steps.last[1:] & ~rows.steps.last[:-1]
    assert 0.15 < np.mean(rows.reward[ends] > 0) < 0.4
    assert np.any(ends & (rows.discount == 0) & (rows.reward < 0))
    assert np.all(np.abs(rows.action) <= 1.0)
    showing = previous_action_and_reward(envs.make(name, 8))
    again = record(experts.of(name), (), showing, 400, random.key(1))
    assert np.any(again.trajectory.reward > 0)
    with pytest.raises(ValueError, match="cannot be trained"):
        experts.of(name).grad((), rows, KEY, None)  # pyright: ignore


def test_heights_are_reached_in_whole_steps():
    """What the script counts on: one step from the ground is not yet high."""
    assert STEP < HIGH <= 2 * STEP
