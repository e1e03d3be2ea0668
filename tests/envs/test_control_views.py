"""Environments as problems of control: what their state is, and whose cost will do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import envs
from jaxrl_par.envs.control import controlled
from jaxrl_par.envs.registry import alone
from jaxrl_par.errors import RefusedError

NAMES = {"Door-60": 6, "PointMass-50": 4, "Pendulum-v1": 2, "Reacher-misc": 4}
"""With the numbers of a state: without poses, goals, time, and what is only drawn."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_what_changes_and_matters(name):
    control = controlled(alone(name), name)
    assert control.state_size == NAMES[name]
    state, _ = control.start(jax.random.key(3))
    x = control.vector(state)
    again = control.with_vector(state, x)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    action = 0.3 * jnp.ones(control.num_actions)
    after, _, cost = control.step(state, action, jax.random.key(0))
    # The same by x alone, in the scene of another time.
    np.testing.assert_allclose(control.cost(state, x, action), cost, rtol=1e-5)
    np.testing.assert_allclose(control.vector(after), control.moved(state, x, action))
    later, *_ = control.step(after, action, jax.random.key(0))
    moved = control.moved(state, control.vector(after), action)
    np.testing.assert_allclose(control.vector(later), moved, rtol=1e-5)


@pytest.mark.slow
def test_what_is_beyond_the_bounds_costs_and_does_nothing():
    control = controlled(alone("Pendulum-v1"))
    state, _ = control.start(jax.random.key(0))
    x = control.vector(state)
    inside, outside = (jnp.full(1, u) for u in (2.0, 5.0))
    np.testing.assert_array_equal(
        control.moved(state, x, inside), control.moved(state, x, outside)
    )
    more = control.cost(state, x, outside) - control.cost(state, x, inside)
    np.testing.assert_allclose(more, 1.5**2, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("CartPole-v1", "actions that are vectors of real numbers"),
        ("MountainCarContinuous-v0", "does not depend on the state where"),
        ("CartPole-v1+Acrobot-v1", "no single environment"),
        ("Bandits-5x10", "no single environment"),
        ("Dor-60", "did you mean 'Door-60'"),
    ],
)
def test_whose_cost_cannot_be_made_quadratic_is_refused(name, told):
    with pytest.raises(RefusedError, match=told):
        controlled(alone(name), name)


@pytest.mark.slow
def test_an_episode_is_no_longer_than_the_environments():
    with pytest.raises(RefusedError, match="has 1 to 60 steps, asked for 61"):
        controlled(alone("Door-60"), num_steps=61)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Door-60", "PointMass-50", "LinearSystem-50"])
def test_tasks_are_environments_as_all_others(name):
    env = envs.make(name, 3)
    state, step = env.reset(jax.random.key(0))
    assert env.max_episode_steps == int(name.split("-")[1])
    assert not env.action_spec.bounded
    _, after, reward, discount = env.step(state, jnp.zeros((3, 2)), jax.random.key(1))
    assert np.all(reward < 0) and np.all(discount == 1)
    assert after.obs.shape == step.obs.shape == (3, *env.observation_spec.shape)
    # Each begins in a pose or state of its own.
    assert len(np.unique(np.asarray(step.obs), axis=0)) == 3
