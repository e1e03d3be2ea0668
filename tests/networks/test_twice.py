"""Second derivatives of what was drawn, against all trajectories of a small world."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxrl_par import random
from jaxrl_par.distributions import Categorical, DiagNormal
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import Network, NetworkConfig, actor_critic
from jaxrl_par.networks.twice import Drawn, twice_differentiable
from jaxrl_par.types import Box, Discrete, TimeStep

# Two steps in states 0, then 1 or 2, as the action is; what pays depends on both.
REWARDS = np.array([[[1.0, -0.5], [0.2, 2.0]], [[0.3, -1.0], [0.7, 0.1]]])
"""[step, first action, second action]; of the first step only the first two count."""
PATHS = list(product((0, 1), (0, 1)))
THETA = jnp.array([0.3, -0.4, 0.8])
"""Logit of action 1 in each state."""


def network() -> Network:
    """A logit for each state, which is what is observed."""

    def unroll(params, carry, steps):
        logit = params[steps.obs]
        policy = Categorical(jnp.stack([jnp.zeros_like(logit), logit], axis=-1))
        return (policy, jnp.zeros(logit.shape)), carry

    return Network(lambda key, step: THETA, lambda n: (), unroll, unroll)


def all_paths() -> tuple[TimeStep, jax.Array, jax.Array]:
    """Steps [3, 4], actions and rewards [2, 4] of all that may happen."""
    actions = jnp.array(PATHS).T
    obs = jnp.stack([jnp.zeros(4, int), 1 + actions[0], jnp.zeros(4, int)])
    no = jnp.zeros((3, 4), bool)
    steps = TimeStep(obs, no.at[0].set(True), no.at[2].set(True))
    rewards = [
        [REWARDS[0, a, 0] for a, _ in PATHS],
        [REWARDS[1, a, b] for a, b in PATHS],
    ]
    return steps, actions, jnp.array(rewards)


def expected_return(theta):
    """J, a sum over all paths."""
    total = 0.0
    for a, b in PATHS:
        chance = jax.nn.sigmoid((2 * a - 1) * theta[0])
        chance *= jax.nn.sigmoid((2 * b - 1) * theta[1 + a])
        total += chance * (REWARDS[0, a, 0] + REWARDS[1, a, b])
    return total


def surrogate(theta, scores, baseline):
    """Sum of p(path) log pi A over all paths, p and A held constant; A is exact."""
    made = network() if scores == "none" else twice_differentiable(network(), scores)
    steps, actions, rewards = all_paths()
    (policy, _), _ = made.unroll(theta, (), steps)
    log_prob = jax.tree.map(lambda x: x[:-1], policy).log_prob(actions)
    paths = jnp.exp(jnp.sum(log_prob, axis=0))
    to_go = jnp.cumsum(rewards[::-1], axis=0)[::-1]
    advantages = to_go - baseline * (1.0 + steps.obs[:-1])
    return jnp.sum(jax.lax.stop_gradient(paths) * jnp.sum(log_prob * advantages, 0))


def test_both_derivatives_are_those_of_the_expected_return():
    def derivatives(theta, baseline):
        def both(function):
            return jax.grad(function)(theta), jax.hessian(function)(theta)

        of = {
            scores: both(partial(surrogate, scores=scores, baseline=baseline))
            for scores in ("episode", "action", "none")
        }
        return of, both(expected_return)

    compiled = jax.jit(derivatives)
    for baseline in (0.0, 3.0):
        found, (slope, curvature) = compiled(THETA, baseline)
        for gradient, _ in found.values():
            np.testing.assert_allclose(gradient, slope, atol=2e-6)
        np.testing.assert_allclose(found["episode"][1], curvature, atol=5e-6)
        # Each action's own probability alone leaves out what it leads to.
        own = found["action"][1]
        np.testing.assert_allclose(np.diag(own), np.diag(curvature), atol=5e-6)
        assert np.abs(own - curvature).max() > 0.05
        assert np.abs(found["none"][1] - curvature).max() > 0.05


def several_episodes(spec, num_steps=6):
    """Observations, and flags of an episode that ends in row 2, before another one."""
    obs = np.random.default_rng(1).normal(size=(num_steps, 2, *spec.shape))
    obs, row = obs.astype(np.float32), np.arange(num_steps)[:, None] * np.ones((1, 2))
    return jax.tree.map(jnp.asarray, TimeStep(obs, (row == 0) | (row == 3), row == 2))


@pytest.mark.parametrize(
    "action",
    [pytest.param(Discrete(3), marks=pytest.mark.slow), Box((2,), low=-1.0, high=1.0)],
)
def test_values_and_first_derivatives_are_the_same_in_all_bits(action):
    spec = Box((3,))
    steps = several_episodes(spec)
    plain = actor_critic(spec, action, NetworkConfig(widths=(4,)))
    start = jax.tree.map(lambda x: x[0], steps)

    @jax.jit
    def both(key):
        params = plain.init(key, start)
        actions = plain.unroll(params, (), steps)[0][0].sample(random.key(2))
        weights = jax.random.normal(random.key(3), steps.first.shape)

        def loss(params, made):
            log_prob = made.unroll(params, (), steps)[0][0].log_prob(actions)
            return jnp.sum(log_prob * weights), log_prob

        networks = plain, twice_differentiable(plain)
        slopes = jax.value_and_grad(loss, has_aux=True)
        return [slopes(params, made) for made in networks]

    jax.tree.map(np.testing.assert_array_equal, *both(random.key(0)))


def test_episodes_begin_anew_and_rows_that_are_last_do_not_count():
    steps = several_episodes(Box((1,)))
    logits = jnp.array([[0.3, -0.2], [1.0, 0.5]] * 3)

    def log_prob(logits):
        both = jnp.stack([jnp.zeros_like(logits), logits], axis=-1)
        # The last row of an episode is of a game that is over: nothing is possible.
        both = both.at[2].set(jnp.array([0.0, -jnp.inf]))
        past = jnp.ones_like(logits)
        drawn = Drawn(Categorical(both), steps.first, steps.last, past)
        return jnp.where(steps.last, 0.0, drawn.log_prob(jnp.ones((6, 2), int)))

    # Row 4 has to do with row 3 of its episode, and with no other one or lane.
    hessians = jax.jit(jax.hessian(lambda x: (log_prob(x)[4, 0], jnp.sum(log_prob(x)))))
    hessian, whole = hessians(logits)
    slopes = 1.0 - jax.nn.sigmoid(logits)
    found = {(t, b) for t, b in np.argwhere(np.abs(hessian[4, 0]) > 1e-6)}
    assert found == {(3, 0), (4, 0)}
    np.testing.assert_allclose(
        hessian[4, 0, 3, 0], slopes[4, 0] * slopes[3, 0], rtol=1e-5
    )
    assert np.all(np.isfinite(whole))


def test_all_else_is_the_policys():
    policy = DiagNormal(jnp.ones((1, 1, 2)), jnp.zeros((1, 1, 2)))
    no = jnp.zeros((1, 1), bool)
    drawn = Drawn(policy, no, no, jnp.ones((1, 1)))
    key = random.key(0)
    np.testing.assert_array_equal(drawn.sample(key), policy.sample(key))
    np.testing.assert_array_equal(drawn.mode(), policy.mode())
    np.testing.assert_array_equal(drawn.entropy(), policy.entropy())
    assert float(drawn.kl(drawn)[0, 0]) == float(drawn.kl(policy)[0, 0]) == 0.0
    flat, _ = ravel_pytree(drawn.sample_and_log_prob(key))
    expected, _ = ravel_pytree(policy.sample_and_log_prob(key))
    np.testing.assert_array_equal(flat, expected)


def test_what_cannot_be_is_refused():
    values = network()._replace(unroll=lambda params, carry, steps: ((1.0, ()), carry))
    with pytest.raises(RefusedError, match=r"outputs are .distribution.*got float"):
        twice_differentiable(values).unroll((), (), several_episodes(Box((1,))))
