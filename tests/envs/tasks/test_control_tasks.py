"""Tasks of control: what moves how, and what is paid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.envs.tasks import door, point_mass
from jaxrl_par.envs.tasks.door import Door
from jaxrl_par.envs.tasks.linear_system import LinearSystem, golden
from jaxrl_par.envs.tasks.point_mass import PointMass
from jaxrl_par.errors import RefusedError

KEY = jax.random.key(0)


def stepped(env, state, action):
    """(state after, reward)"""
    given = KEY, state, jnp.float32(action), env.default_params
    _, after, reward, *_ = env.step_env(*given)
    return after, float(reward)


def closed(hand_is_off=(0.0, 0.0)):
    """A closed door, whose handle the hand is so far away from."""
    env = Door()
    _, state = env.reset_env(KEY, env.default_params)
    at = np.asarray(door.handle(state)) + hand_is_off
    # The elbow's angle, then the shoulder's, by the law of cosines.
    elbow = np.arccos((at @ at) / (2 * 0.8**2) - 1)
    shoulder = np.arctan2(at[1], at[0]) - elbow / 2
    return env, state._replace(angles=jnp.float32([shoulder, elbow]))


@pytest.mark.slow
def test_the_hand_is_at_the_end_of_two_links_and_has_their_jacobian():
    angles = jnp.array([0.4, 1.1])
    right = 0.8 * np.array([np.cos(0.4) + np.cos(1.5), np.sin(0.4) + np.sin(1.5)])
    np.testing.assert_allclose(door._hand(angles), right, rtol=1e-5)
    np.testing.assert_allclose(
        door._jacobian(angles), jax.jacfwd(door._hand)(angles), rtol=1e-5
    )


@pytest.mark.slow
def test_only_a_hand_at_the_handle_moves_the_door_and_feels_it():
    # Towards the arm, the door opens; with a stop behind it, it does not the other way.
    env, state = closed(hand_is_off=(-0.1, 0.0))
    after, _ = stepped(env, state, [0.0, 0.0])
    assert float(after.swing) > 0.05 and np.abs(after.speeds).max() > 0.01
    force = 25.0 * np.exp(-0.5 * (0.1 / 0.15) ** 2) * 0.1
    lever = float(state.hinge[1] - door.handle(state)[1])
    np.testing.assert_allclose(after.swing, 0.05 * force * lever, rtol=2e-2)
    env, state = closed(hand_is_off=(-0.6, 0.0))
    after, _ = stepped(env, state, [0.0, 0.0])
    assert abs(float(after.swing)) < 1e-3


@pytest.mark.slow
def test_a_door_that_is_open_costs_less():
    env, state = closed()
    _, paid = stepped(env, state, [0.0, 0.0])
    np.testing.assert_allclose(paid, -2.0 * 1.5**2, rtol=1e-3)
    _, effort = stepped(env, state, [3.0, 4.0])
    np.testing.assert_allclose(paid - effort, 0.01 * 25, rtol=1e-2)
    assert not bool(env.succeeded(state))
    assert bool(env.succeeded(state._replace(opening=jnp.float32(1.1))))


@pytest.mark.slow
def test_obstacles_are_hills_and_the_goal_costs_nothing():
    env = PointMass()
    _, state = env.reset_env(KEY, env.default_params)
    goal = state._replace(position=jnp.array([1.0, 0.0]))
    _, paid = stepped(env, goal, [0.0, 0.0])
    assert -0.01 < paid <= 0 and bool(env.succeeded(goal))
    for centre in point_mass._OBSTACLES:
        heights = point_mass.hills(jnp.array(centre))
        np.testing.assert_allclose(np.max(heights), 3.0, rtol=1e-5)
    after, _ = stepped(env, state._replace(velocity=jnp.array([1.0, 0.0])), [2.0, 0.0])
    # Half of its speed is drag, per second, over a tenth of one.
    np.testing.assert_allclose(after.velocity, [1.0 + 0.1 * 1.5, 0.0], rtol=1e-5)


@pytest.mark.slow
def test_a_linear_system_is_what_its_matrices_say():
    env = LinearSystem(5, golden(5))
    _, state = env.reset_env(KEY, env.default_params)
    state = state._replace(position=jnp.array([2.0]))
    _, after, reward, *_ = env.step_env(
        KEY, state, jnp.array([-0.5]), env.default_params
    )
    np.testing.assert_allclose(after.position, [1.5])
    np.testing.assert_allclose(reward, -0.5 * (4 + 0.25))


def test_an_episode_has_steps():
    with pytest.raises(RefusedError, match="length must be at least 1, got 0"):
        Door(0)
