"""Optimizers against their equations."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.elapsed import passed
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer


def first_step(config, grad):
    optimizer = make_optimizer(config)
    params = jnp.zeros_like(grad)
    updates, _ = optimizer.update(grad, optimizer.init(params), params)
    return updates


@pytest.mark.parametrize(("epsilon", "expected"), [(0.1, 3.01511), (1e-8, 10.0)])
def test_rmsprop_has_its_epsilon_inside_the_root(epsilon, expected):
    # Fact sheet a3c_async_methods, check 3: g = 0, gradient 1, decay 0.99.
    config = OptimizerConfig(
        "rmsprop", learning_rate=1.0, anneal=False, max_grad_norm=10.0, epsilon=epsilon
    )
    np.testing.assert_allclose(first_step(config, jnp.ones(1)), -expected, rtol=1e-4)


def test_adagrad_divides_by_the_root_of_all_squares():
    """Fact sheet gorila, check 4: gradients of 1 go to -sum 1 / sqrt(k)."""
    config = OptimizerConfig(
        "adagrad", learning_rate=1.0, anneal=False, max_grad_norm=10.0, epsilon=1e-8
    )
    optimizer, place = make_optimizer(config), 0.0
    state, ones = optimizer.init(jnp.zeros(3)), jnp.array([1.0, 0.0, -1.0])
    for k in range(1, 11):
        updates, state = optimizer.update(ones, state, jnp.zeros(3))
        place = place + updates
        expected = -sum(1.0 / np.sqrt(range(1, k + 1)))
        np.testing.assert_allclose(place, expected * ones, rtol=1e-6)


def test_gradients_are_clipped_to_their_global_norm():
    """And steps are not, which are half as long."""
    config = OptimizerConfig("sgd", learning_rate=0.5, anneal=False, max_grad_norm=1.0)
    step = first_step(config, jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(step, [-0.3, -0.4], rtol=1e-6)


def test_the_learning_rate_reaches_zero_at_the_end():
    config = OptimizerConfig("sgd", learning_rate=1.0, max_grad_norm=10.0)
    optimizer = make_optimizer(config, 40)
    params = jnp.zeros(1)
    state, steps = optimizer.init(params), []
    for env_steps in (0, 10, 10, 10, 10, 10):
        state = passed(state, env_steps)
        # However many updates are made between environment steps.
        for _ in range(2):
            updates, state = optimizer.update(jnp.ones(1), state, params)
        steps.append(float(updates[0]))
    np.testing.assert_allclose(steps, [-1.0, -0.75, -0.5, -0.25, 0.0, 0.0])


def test_a_rate_that_is_annealed_needs_the_steps_of_the_run():
    with pytest.raises(ValueError, match="annealed over total_env_steps: give them"):
        make_optimizer(OptimizerConfig())


def test_wrong_numbers_are_named():
    config = OptimizerConfig(learning_rate=0.0, epsilon=-1.0, decay=1.0)
    assert len(config.problems()) == 3
    (problem,) = OptimizerConfig(learning_rate=float("inf")).problems()
    assert problem == "learning_rate must be below inf, got inf"
    assert OptimizerConfig().problems() == []
