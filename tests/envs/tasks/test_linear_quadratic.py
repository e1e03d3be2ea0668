"""Linear systems: what a step pays and where it leads, and the best policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import envs, random
from jaxrl_par.envs.tasks.linear_quadratic import LinearQuadratic, answer
from jaxrl_par.testing import check_environment


def test_a_step_is_that_of_the_equations():
    env = LinearQuadratic(3, 2)
    params, rng = env.default_params, np.random.default_rng(0)
    x, u = rng.normal(size=3), rng.normal(size=2)
    _, state = env.reset_env(random.key(0), params)
    given = state._replace(x=jnp.float32(x)), jnp.float32(u), params
    obs, after, reward, *_ = env.step_env(random.key(0), *given)
    # Each state is pushed by the next one, and inputs push the last two.
    expected = [x[0] + x[1], x[1] + x[2] + u[0], x[2] + u[1]]
    np.testing.assert_allclose(obs, expected, rtol=1e-6)
    np.testing.assert_allclose(after.x, expected, rtol=1e-6)
    np.testing.assert_allclose(reward, -0.5 * (x @ x + u @ u), rtol=1e-6)


def test_the_answer_is_the_golden_ratio():
    found = answer(LinearQuadratic(1, 1).default_params)
    np.testing.assert_allclose(found.gains, [[-0.618034]], rtol=1e-6)
    np.testing.assert_allclose(found.value, [[1.618034]], rtol=1e-6)
    np.testing.assert_allclose(found.curvature, [[2.618034]], rtol=1e-6)


def test_no_other_gain_is_better():
    """Discounted costs of u = K x from several states, added up step by step."""
    params = LinearQuadratic(2, 1).default_params
    found = answer(params, 0.9)
    a, b = (np.float64(x) for x in params[:2])

    def cost(gains, x):
        total = 0.0
        for t in range(300):
            u = gains @ x
            total += 0.9**t * (x @ x + u @ u) / 2
            x = a @ x + b @ u
        return total

    for x in np.eye(2):
        least = cost(found.gains, x)
        np.testing.assert_allclose(least, x @ found.value @ x / 2, rtol=1e-9)
        for change in np.concatenate([0.05 * np.eye(2), -0.05 * np.eye(2)]):
            assert cost(found.gains + change, x) > least


def test_a_system_that_cannot_be_held_has_no_answer():
    params = LinearQuadratic(2, 1).default_params
    away = params.replace(dynamics=2.0 * jnp.eye(2))
    with pytest.raises(ValueError, match="no policy of finite costs"):
        answer(away)


@pytest.mark.slow
def test_inputs_are_bounded_and_episodes_cut():
    env = envs.make("LQR-1x1", 2, length=3)
    assert env.name == "LQR-1x1" and env.max_episode_steps == 3
    state, step = env.reset(random.key(0))
    x = step.obs
    # The nearest input within the bounds is done, and paid.
    _, after, reward, _ = env.step(state, jnp.full((2, 1), 9.0), random.key(1))
    np.testing.assert_allclose(after.obs, x + 4.0, rtol=1e-6)
    np.testing.assert_allclose(reward, -0.5 * (x[:, 0] ** 2 + 16.0), rtol=1e-6)
    step_jit = jax.jit(env.step)
    for t in range(3):
        state, step, _, discount = step_jit(state, jnp.zeros((2, 1)), random.key(t))
        assert np.all(discount == 1) and np.all(step.last == (t == 2))


@pytest.mark.slow
@pytest.mark.parametrize("bound", [4.0, np.inf])
def test_it_keeps_the_contract(bound):
    env = envs.make("LQR-2x1", 4, bound=bound)
    assert env.action_spec.bounded == np.isfinite(bound)
    check_environment(env)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (((1, 2), {}), "inputs must be at most states = 1, got 2"),
        (((2, 1), {"bound": 0.0}), "bound must be above 0"),
        (((2, 1), {"length": 0}), "length must be at least 1"),
    ],
)
def test_bad_sizes_are_refused(given, message):
    sizes, options = given
    with pytest.raises(ValueError, match=message):
        LinearQuadratic(*sizes, **options)
