"""Policies of bounded real numbers and their values, in units of the bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.networks import (
    NetworkConfig,
    action_value,
    deterministic_policy,
    gaussian_policy,
)
from jaxrl_par.networks.continuous import LOG_STD, shown, units_of
from jaxrl_par.testing import check_network, probes
from jaxrl_par.types import Box, Discrete, TimeStep

SMALL = NetworkConfig(widths=(8,), channels=3)
PIXELS = Box((36, 37, 2), np.dtype(np.uint8))
TWO = Box((2,), low=np.array([-1.0, 0.0]), high=np.array([3.0, 0.1]))


def test_units_go_there_and_back_within_the_bounds():
    units = units_of(TWO)
    unit = jnp.array([[-1.0, -1.0], [0.0, 0.0], [0.5, -0.25], [1.0, 1.0]])
    expected = [[-1.0, 0.0], [1.0, 0.05], [2.0, 0.0375], [3.0, 0.1]]
    np.testing.assert_allclose(units.action(unit), expected, rtol=1e-6)
    np.testing.assert_allclose(units.unit(units.action(unit)), unit, atol=1e-6)
    beyond = np.float64(units.action(jnp.array([[1.5, 1.0000001]])))
    # 0.1 of float64, than which that of float32 is larger.
    assert np.all(beyond <= TWO.high)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30, 1.6e38])
def test_bounds_may_be_of_any_width(scale):
    units = units_of(Box((1,), low=-scale, high=scale))
    unit = jnp.array([[-0.5], [1.0]])
    action = units.action(unit)
    np.testing.assert_allclose(action, unit * np.float32(scale), rtol=1e-6)
    np.testing.assert_allclose(units.unit(action), unit, rtol=1e-6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Discrete(3), "must be a Box of bounded real numbers here, got Discrete"),
        (Box((2,)), "a lower and a higher bound, whose distance is finite"),
        (Box((1,), low=-1.0), "a lower and a higher bound"),
        (Box((2,), low=0.0, high=np.array([1.0, 0.0])), "a lower and a higher bound"),
        (Box((1,), low=-3e38, high=3e38), "whose distance is finite in float32"),
        (Box((), low=-1.0, high=1.0), "must be a vector of numbers"),
        (Box((1,), np.dtype(np.int32), low=0.0, high=1.0), "must be real numbers here"),
    ],
)
def test_what_has_no_units_is_refused(spec, message):
    for make in (gaussian_policy, deterministic_policy, action_value):
        with pytest.raises(ValueError, match=message):
            make(Box((3,)), spec)


def test_memory_is_refused():
    lstm = NetworkConfig(memory="lstm")
    with pytest.raises(
        ValueError, match=r"network\.memory must be none here, got lstm"
    ):
        action_value(Box((3,)), TWO, lstm)


@pytest.mark.slow
def test_policies_keep_the_promises_of_a_network():
    env = probes.continuous_action(4)
    for make in (gaussian_policy, deterministic_policy):
        check_network(make(*env.specs, SMALL), env)


def test_a_gaussian_policy_begins_near_the_standard_normal():
    steps = steps_of({"a": Box((4,)), "b": Discrete(3)})
    policy = gaussian_policy({"a": Box((4,)), "b": Discrete(3)}, TWO, SMALL)
    params = jax.jit(policy.init)(random.key(0), steps)
    made, _ = policy.apply(params, (), steps)
    assert made.mean.shape == made.log_std.shape == (3, 2)
    assert 0.0 < np.abs(made.mean).max() < 0.1 and np.abs(made.log_std).max() < 0.1
    np.testing.assert_array_equal(made.centre, np.zeros((3, 2)))
    np.testing.assert_array_equal(made.half_width, np.ones((3, 2)))
    far = jax.tree.map(lambda x: 1e4 + x, params)
    made, _ = policy.apply(far, (), steps)
    np.testing.assert_array_equal(made.log_std, np.full((3, 2), LOG_STD[1]))


def steps_of(spec):
    """Steps [3] of random observations."""
    rng = np.random.default_rng(0)

    def leaf(spec):
        if isinstance(spec, Discrete):
            return jnp.array(rng.integers(spec.num_values, size=3), jnp.int32)
        return jnp.array(rng.random((3, *spec.shape)), spec.dtype)

    obs = jax.tree.map(leaf, spec, is_leaf=lambda x: isinstance(x, Box | Discrete))
    return TimeStep(obs, jnp.zeros(3, bool), jnp.zeros(3, bool))


@pytest.mark.parametrize(
    ("spec", "torso"),
    [
        (Box((4,)), "auto"),
        pytest.param(PIXELS, "shallow", marks=pytest.mark.slow),
        pytest.param(Box((9, 8, 2)), "conv", marks=pytest.mark.slow),
    ],
)
def test_values_depend_on_the_action_in_no_linear_way(spec, torso):
    steps = steps_of(spec)
    config = NetworkConfig(widths=(8,), channels=3, torso=torso)
    critic = action_value(spec, TWO, config)
    unit = jnp.zeros((3, 2))
    params = jax.jit(critic.init)(random.key(0), shown(steps, unit))
    value = jax.jit(lambda u: critic.apply(params, (), shown(steps, u))[0])
    lower, middle, upper = (value(unit + 2 * x) for x in (-1.0, 0.0, 1.0))
    assert middle.shape == (3,) and middle.dtype == jnp.float32
    assert np.all(lower != upper) and np.any(abs(lower + upper - 2 * middle) > 1e-3)
