"""The quadratic advantage: its factor, its best action, the noise that it shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nearness import assert_near

from jaxrl_par import random
from jaxrl_par.networks import NetworkConfig, normalised_advantage
from jaxrl_par.networks.normalised_advantage import LOG_DIAGONAL, Quadratic, factor
from jaxrl_par.types import Box, Discrete, TimeStep

OBS = Box((3,))
SMALL = NetworkConfig(widths=(8,), activation="relu")


def quadratic(mean, lower, value=0.0):
    return Quadratic(*(jnp.asarray(x, jnp.float32) for x in (value, mean, lower)))


def made(action_spec, scale=0.0):
    """Outputs for five observations; parameters are shaken by `scale`."""
    network = normalised_advantage(OBS, action_spec, SMALL)
    rng, no = np.random.default_rng(0), jnp.zeros(5, bool)
    step = TimeStep(jnp.asarray(rng.normal(size=(5, 3)), jnp.float32), no, no)
    params = network.init(random.key(0), step)
    shake = lambda x: x + jnp.float32(scale * rng.normal(size=x.shape))  # noqa: E731
    return network.apply(jax.tree.map(shake, params), (), step)[0]


def test_the_advantage_is_that_of_the_sheet():
    """Raw diagonal (0, 0.2), 0.5 below: P = [[1, 0.5], [0.5, 1.741825]]."""
    lower = factor(jnp.float32([0.0, 0.2, 0.5]), 2)
    np.testing.assert_allclose(lower, [[1.0, 0.0], [0.5, 1.221403]], rtol=1e-6)
    np.testing.assert_allclose(lower @ lower.T, [[1, 0.5], [0.5, 1.741825]], rtol=1e-6)
    values = quadratic([0.1, -0.2], lower, 3.0)
    unit = jnp.float32([0.3, 0.1])
    np.testing.assert_allclose(values.advantage(unit), -0.128382, rtol=1e-5)
    np.testing.assert_allclose(values.q_value(unit), 3.0 - 0.128382, rtol=1e-6)
    assert values.advantage(values.mean) == 0 and values.q_value(values.mean) == 3


def test_the_sides_of_the_factor_are_not_mixed():
    """Trap 10: L = [[1, 0], [2, 1]]: A = -0.5, and not -2.5; noise has the covariance
    [[5, -2], [-2, 1]], and not [[1, -2], [-2, 5]]."""
    values = quadratic([0.0, 0.0], [[1.0, 0.0], [2.0, 1.0]])
    assert float(values.advantage(jnp.float32([1.0, 0.0]))) == -0.5
    columns = jax.vmap(values.shaped)(jnp.eye(2))
    np.testing.assert_allclose(columns.T @ columns, [[5, -2], [-2, 1]], rtol=1e-6)


def test_noise_is_shaped_by_a_factor_of_any_size():
    rng = np.random.default_rng(0)
    lower = np.tril(rng.normal(size=(4, 5, 5)), -1) + 2 * np.eye(5)
    normal = rng.normal(size=(4, 5))
    found = quadratic(np.zeros((4, 5)), lower).shaped(jnp.float32(normal))
    expected = np.linalg.solve(np.swapaxes(lower, 1, 2), normal[..., None])[..., 0]
    assert_near(found, expected)


@pytest.mark.slow
def test_no_action_is_better_than_the_best():
    rng = np.random.default_rng(0)
    lower = factor(jnp.float32(rng.normal(size=(5, 3))), 2)
    values = quadratic(rng.uniform(-1, 1, (5, 2)), lower, rng.normal(size=5))
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 41)] * 2), -1).reshape(-1, 2)
    units = jnp.broadcast_to(jnp.float32(grid)[:, None], (len(grid), 5, 2))
    found = np.asarray(jax.vmap(values.q_value)(units))
    assert np.all(found <= values.value) and np.all(found.max(axis=0) < values.value)
    # And who is far from it is worse than who is near.
    away = np.abs(grid[np.argmax(found, axis=0)] - values.mean)
    assert np.all(away < np.abs(grid[np.argmin(found, axis=0)] - values.mean))


@pytest.mark.slow
def test_the_best_action_is_within_the_bounds_if_there_are_any():
    """It begins in the middle, with a curvature of 1."""
    values = made(Box((2,), low=-3.0, high=0.5))
    assert np.all(np.abs(values.mean) < 0.1)
    eye = np.broadcast_to(np.eye(2), (5, 2, 2))
    np.testing.assert_allclose(values.factor, eye, atol=0.1)
    within, free = made(Box((2,), low=-3.0, high=0.5), 1.0), made(Box((2,)), 1.0)
    assert np.abs(free.mean).max() > 1.5
    np.testing.assert_allclose(within.mean, np.tanh(free.mean), rtol=1e-5)


def test_the_curvature_is_bounded():
    low, high = np.exp(LOG_DIAGONAL)
    lower = factor(jnp.float32([-30.0, 30.0, 0.0]), 2)
    np.testing.assert_allclose(jnp.diag(lower), [low, high], rtol=1e-6)


@pytest.mark.slow
def test_a_curvature_at_its_bound_has_a_slope_that_leads_back():
    """Descent goes against the slope: of 30 only downwards, of -30 only upwards."""
    raw = jnp.float32([-30.0, 30.0, 1.0])

    def slopes(sign):
        traces = lambda x: sign * jnp.sum(jax.vmap(lambda y: factor(y[None], 1))(x))  # noqa: E731
        return np.sign(jax.grad(traces)(raw))

    np.testing.assert_array_equal(slopes(1.0), [0, 1, 1])
    np.testing.assert_array_equal(slopes(-1.0), [-1, 0, -1])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Box((2,), low=np.array([-1.0, -np.inf]), high=1.0), "a lower and a higher"),
        (Box((2,), low=0.0), r"a lower and a higher bound.*, or none of them any"),
        (Discrete(2), "a Box of real numbers here, got Discrete"),
        (Box((2, 2)), "an action must be a vector"),
        (Box((2,), np.dtype(np.int32)), "must be real numbers"),
    ],
)
def test_other_actions_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        normalised_advantage(OBS, spec, SMALL)


def test_memory_is_refused():
    with pytest.raises(ValueError, match=r"network\.memory must be none"):
        normalised_advantage(OBS, Box((2,)), NetworkConfig(memory="gru"))
