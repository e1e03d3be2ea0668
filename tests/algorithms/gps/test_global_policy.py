"""The global policy: weights, its covariance, prices, and who it is not for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par.algorithms.gps import (
    GPSConfig,
    PriorConfig,
    badmm,
    global_policy,
    guided_policy_search,
)
from jaxrl_par.algorithms.gps.policy import joint_covariance
from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError
from jaxrl_par.guidance import Controllers, Lessons
from jaxrl_par.networks import NetworkConfig, policy_network
from jaxrl_par.types import Box, Discrete, TimeStep

LINEAR = NetworkConfig(widths=())
SEES = Box((3,))


def linear_policy(rate=0.1):
    return global_policy(policy_network(SEES, Box((2,)), LINEAR), optax.sgd(rate))


def begun(agent):
    no = jnp.zeros(1, bool)
    return agent.init(jax.random.key(0), TimeStep(jnp.zeros((1, 3)), no, no))


@pytest.mark.slow
def test_the_gradient_is_that_of_weighted_precise_errors():
    agent = linear_policy()
    state = begun(agent)
    draws = np.random.default_rng(0)
    obs, mean = draws.normal(size=(6, 3)), draws.normal(size=(6, 2))
    root = draws.normal(size=(6, 2, 2))
    precision, weight = root @ root.transpose(0, 2, 1), draws.uniform(1, 2, 6)
    batch = Lessons(*(jnp.float32(x) for x in (obs, mean, precision, weight)))
    grads, _ = agent.grad(state, batch, jax.random.key(0), Axis())
    heads = {k: np.float64(v) for k, v in state.params["params"]["_Heads_0"].items()}
    error = obs @ heads["policy"] + heads["policy_bias"] - mean
    scale = np.mean(np.trace(precision, axis1=1, axis2=2) * weight) / 2
    pull = np.einsum("mab,mb->ma", precision, error) * weight[:, None] / scale / 6
    found = grads["params"]["_Heads_0"]
    np.testing.assert_allclose(found["policy"], obs.T @ pull, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        found["policy_bias"], pull.sum(axis=0), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_the_covariance_of_equal_ones_is_theirs():
    one = jnp.array([[0.5, 0.2], [0.2, 0.3]])
    same = jnp.broadcast_to(jnp.linalg.inv(one), (3, 4, 2, 2))
    np.testing.assert_allclose(joint_covariance(same, Axis()), one, rtol=1e-4)
    # Of others the precisions are averaged, not the covariances.
    found = joint_covariance(jnp.array([[[1.0]], [[3.0]]]), Axis())
    np.testing.assert_allclose(found, [[0.5]], rtol=1e-4)


def test_a_controller_has_a_gain_and_an_offset_for_every_step():
    given = Controllers(
        jnp.arange(4.0).reshape(1, 2, 1, 2), jnp.array([[[1.0], [2.0]]]),
        jnp.ones((1, 2, 1, 1)),
    )  # fmt: skip
    states = jnp.array([[[1.0, 10.0], [2.0, 20.0]]])
    np.testing.assert_allclose(given.mean(states), [[[11.0], [66.0]]])


def alone(price=0.0, weight=2.0, apart=np.inf):
    """Duals of one initial state, one step and one action."""
    return badmm.Duals(
        jnp.full((1, 1, 1), price), jnp.full((1, 1), weight), jnp.array([apart])
    )


def constant(action, covariance=0.5):
    one = jnp.ones((1, 1, 1, 1))
    return Controllers(0.0 * one, action * one[..., 0], covariance * one)


@pytest.mark.slow
def test_prices_rise_where_the_global_policy_does_more():
    """lambda + rate nu C^-1 (mu_pi - mu_p), which both sides then follow."""
    config = GPSConfig(method="badmm", dual_rate=0.1)
    points, none = jnp.ones((1, 1, 1, 2)), jnp.zeros((1, 1))
    after = badmm.updated(alone(), constant(1.0), constant(4.0), points, none, config)
    np.testing.assert_allclose(after.price, [[[0.1 * 2.0 / 0.5 * 3.0]]], rtol=1e-5)
    lessons = badmm.lessons(
        alone(price=1.2), points, jnp.ones((1, 1, 1, 1)), jnp.full((1, 1, 1, 1), 0.5),
        jnp.full((1, 1, 1, 1), 2.0),
    )  # fmt: skip
    np.testing.assert_allclose(lessons.mean, [[[[1.0 - 0.5 * 1.2 / 2.0]]]], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "right"), [(1.0, 0.96, 4.0), (1.0, 0.9, 2.0), (1.0, 0.7, 1.0)]
)
def test_weights_follow_how_fast_both_come_nearer(before, after, right):
    config, points = GPSConfig(method="badmm"), jnp.ones((1, 1, 1, 2))
    given = constant(1.0), constant(1.0), points, jnp.full((1, 1), after), config
    found = badmm.updated(alone(apart=before), *given)
    np.testing.assert_allclose(found.weight, [[right]], rtol=1e-6)
    first = badmm.updated(alone(), *given)
    np.testing.assert_allclose(first.weight, [[2.0]])


def test_who_has_other_actions_or_memory_is_refused():
    for spec in (Discrete(3), Box((9,))):
        with pytest.raises(RefusedError, match="needs actions of 1 to 8 real numbers"):
            global_policy(policy_network(SEES, spec, LINEAR), optax.sgd(0.1))
    memory = NetworkConfig(widths=(8,), memory="gru", memory_width=8)
    with pytest.raises(RefusedError, match=r"network\.memory = none"):
        global_policy(policy_network(SEES, Box((2,)), memory), optax.sgd(0.1))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kl_step": 0.0}, "kl_step must be above 0, got 0.0"),
        ({"smallest_step": 2.0, "largest_step": 1.0}, "at least smallest_step = 2.0"),
        ({"prior": PriorConfig(strength=0.0)}, "prior.strength must be above 0"),
    ],
)
def test_what_is_out_of_range_is_refused(settings, told):
    with pytest.raises(RefusedError, match=told):
        guided_policy_search(lambda *_: jnp.zeros(()), 5, 1, 1, GPSConfig(**settings))
