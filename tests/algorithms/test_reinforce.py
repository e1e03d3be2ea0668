"""REINFORCE against exact gradients, its identities, and probes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import random
from jaxrl_par.algorithms import reinforce as module
from jaxrl_par.algorithms.reinforce import ReinforceConfig, reinforce
from jaxrl_par.axis import Axis
from jaxrl_par.distributions import Categorical
from jaxrl_par.networks import Network, NetworkConfig, actor_critic
from jaxrl_par.rollout import whole_episodes
from jaxrl_par.testing import check_agent, probes
from jaxrl_par.topologies.compiled import episodic, scanned
from jaxrl_par.types import TimeStep, Trajectory

SMALL = NetworkConfig(widths=(16,), memory_width=16)
BASELINES = ["none", "mean", "leave_one_out", "learned"]


def tabular(num_actions=2):
    """A policy whose parameters are its logits; values are 0."""

    def outputs(params, steps):
        shape = steps.first.shape
        logits = jnp.broadcast_to(params, (*shape, num_actions))
        return Categorical(logits), jnp.zeros(shape)

    return Network(
        init=lambda key, step: jnp.zeros(num_actions),
        initial_carry=lambda num_envs: (),
        apply=lambda params, carry, step: (outputs(params, step), carry),
        unroll=lambda params, carry, steps: (outputs(params, steps), carry),
    )


def bandit_episodes(actions):
    """One step each, which pays 1 for action 0 and nothing for action 1."""
    num = len(actions)
    first = jnp.stack([jnp.ones(num, bool), jnp.zeros(num, bool)])
    return Trajectory(
        steps=TimeStep(jnp.zeros((2, num, 1)), first, ~first),
        action=jnp.asarray(actions)[None],
        reward=jnp.where(jnp.asarray(actions) == 0, 1.0, 0.0)[None],
        discount=jnp.zeros((1, num)),
        extras={},
        carry=(),
    )


def gradient(trajectory, config, params):
    network = tabular()
    batch = module.make_batch(trajectory, config, Axis())
    return jax.grad(lambda p: module.loss(p, batch, network, config)[0])(params)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_the_expected_gradient_is_exact_on_a_bandit(baseline):
    """Fact sheet parallel_policy_gradient, check 3: grad J = [0.25, -0.25]."""
    config = ReinforceConfig(baseline=baseline, reduction="mean")
    total = np.zeros(2)
    # All 16 outcomes of four workers, which are equally likely.
    for outcome in range(16):
        actions = [(outcome >> i) & 1 for i in range(4)]
        total -= gradient(bandit_episodes(actions), config, jnp.zeros(2))
    np.testing.assert_allclose(total / 16, [0.25, -0.25], atol=1e-6)


@pytest.mark.slow
def test_a_mean_that_includes_oneself_shrinks_the_gradient():
    """By (N - 1) / N, as the fact sheet says."""
    config = ReinforceConfig(baseline="mean", reduction="mean")
    total = np.zeros(2)
    for outcome in range(16):
        actions = [(outcome >> i) & 1 for i in range(4)]
        total -= gradient(bandit_episodes(actions), config, jnp.zeros(2))
    np.testing.assert_allclose(total / 16, np.array([0.25, -0.25]) * 3 / 4, atol=1e-6)


def test_with_two_workers_each_is_the_others_baseline():
    batch = module.make_batch(
        bandit_episodes([0, 1]), ReinforceConfig(baseline="leave_one_out"), Axis()
    )
    np.testing.assert_allclose(batch.baseline, [[0.0, 1.0]])


@pytest.mark.parametrize("returns", ["to_go", "whole"])
def test_the_mean_is_over_the_rows_of_all_devices(returns):
    """Device 0 has an episode of one step, device 1 one of two."""
    last = jnp.array([[[False], [True], [True]], [[False], [False], [True]]])
    episodes = Trajectory(
        steps=TimeStep(jnp.zeros((2, 3, 1, 1)), jnp.zeros((2, 3, 1), bool), last),
        action=jnp.zeros((2, 2, 1), jnp.int32),
        reward=jnp.array([[[1.0], [0.0]], [[2.0], [4.0]]]),
        discount=jnp.array([[[0.0], [0.0]], [[1.0], [0.0]]]),
        extras={},
        carry=(),
    )
    config = ReinforceConfig(gamma=1.0, returns=returns)
    batch = jax.vmap(
        lambda own: module.make_batch(own, config, Axis("data")), axis_name="data"
    )(episodes)
    # To go: (1 + 6 + 4) over three rows. Whole: (1 + 6) over two episodes.
    mean = {"to_go": 11 / 3, "whole": 7 / 2}[returns]
    weight = np.array([[1, 0], [1, 1]])
    np.testing.assert_allclose(batch.baseline[..., 0], mean * weight, rtol=1e-6)


@pytest.mark.slow
def test_returns_are_sums_of_discounted_rewards_to_the_end():
    env = probes.delayed_reward(3)
    network = actor_critic(env.observation_spec, env.action_spec, SMALL)
    config = ReinforceConfig(gamma=0.9, baseline="none")
    agent = reinforce(network, optax.sgd(0.1), config)
    _, step = env.reset(random.key(0))
    params = agent.init(random.key(0), step).params
    length = env.max_episode_steps or 10
    trajectory, _ = whole_episodes(agent, env, params, random.key(1), length)
    batch = module.make_batch(trajectory, config, Axis())
    rewards = np.asarray(trajectory.reward)
    expected, following = np.zeros_like(rewards), 0.0
    for t in reversed(range(len(rewards))):
        following = rewards[t] + 0.9 * following
        expected[t] = following
    last = np.asarray(trajectory.steps.last[:-1])
    np.testing.assert_allclose(
        batch.returns, np.where(last, 0.0, expected), rtol=1e-5, atol=1e-6
    )
    whole = module.make_batch(trajectory, replace(config, returns="whole"), Axis())
    np.testing.assert_allclose(
        whole.returns, np.where(last, 0.0, expected[0]), rtol=1e-5, atol=1e-6
    )


def test_an_entropy_bonus_pulls_towards_more_of_it():
    """With returns of 0 nothing else does; d entropy / d logits is known."""
    episodes = bandit_episodes([1, 1])
    config = ReinforceConfig(baseline="none", entropy_cost=0.5, reduction="mean")
    params = jnp.array([0.3, -0.2])
    p = np.asarray(jax.nn.softmax(params), np.float64)
    entropy = -np.sum(p * np.log(p))
    slope = -p * (np.log(p) + entropy)
    np.testing.assert_allclose(
        gradient(episodes, config, params), -0.5 * slope, rtol=1e-5
    )


def test_a_learned_baseline_regresses_on_the_return_and_is_no_part_of_the_policy():
    """v = 0.5, return 2, value_cost 0.5: d loss / d v = -0.5 (2 - 0.5) = -0.75."""

    def outputs(params, steps):
        policy = Categorical(jnp.zeros((*steps.first.shape, 2)))
        return policy, jnp.broadcast_to(params, steps.first.shape)

    network = tabular()._replace(
        unroll=lambda params, carry, steps: (outputs(params, steps), carry)
    )
    config = ReinforceConfig(baseline="learned", value_cost=0.5)
    episodes = bandit_episodes([0])
    batch = module.make_batch(episodes._replace(reward=jnp.full((1, 1), 2.0)), config,
                              Axis())  # fmt: skip
    slope = jax.grad(lambda v: module.loss(v, batch, network, config)[0])(0.5)
    assert float(slope) == pytest.approx(-0.75)


def test_the_sum_over_workers_is_their_number_times_the_mean():
    episodes = bandit_episodes([0, 1, 0, 0])
    params = jnp.array([0.3, -0.2])
    summed = gradient(episodes, ReinforceConfig(baseline="none"), params)
    config = ReinforceConfig(baseline="none", reduction="mean")
    mean = gradient(episodes, config, params)
    np.testing.assert_allclose(summed, 4 * mean, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", BASELINES)
def test_every_baseline_learns_the_bandit(baseline):
    env = probes.observation_reward(32)
    network = actor_critic(env.observation_spec, env.action_spec, SMALL)
    config = ReinforceConfig(baseline=baseline, reduction="mean")
    agent = reinforce(network, optax.adam(0.02), config)
    program = episodic(agent, env, max_steps=2)
    _, metrics = jax.jit(lambda key: scanned(program, 150)(program.init(key)))(
        random.key(0)
    )
    total, count = metrics["episode_return"]
    assert float(total[-30:].sum() / count[-30:].sum()) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize("probe", [probes.observation_reward, probes.continuous_action])
def test_keeps_the_promises_of_an_agent(probe, memory):
    env = probe(4)
    network = actor_critic(
        env.observation_spec, env.action_spec, replace(SMALL, memory=memory)
    )
    agent = reinforce(network, optax.sgd(0.1), ReinforceConfig(baseline="none"))
    check_agent(agent, env)


@pytest.mark.parametrize("baseline", ["none", "mean", "leave_one_out"])
@pytest.mark.parametrize("returns", ["to_go", "whole"])
def test_rows_that_are_all_last_have_a_baseline_of_zero(baseline, returns):
    zeros = jnp.zeros((2, 1))
    episodes = Trajectory(
        steps=TimeStep(jnp.zeros((3, 1, 1)), *[jnp.ones((3, 1), bool)] * 2),
        action=zeros.astype(jnp.int32), reward=zeros, discount=zeros, extras={},
        carry=(),
    )  # fmt: skip
    config = ReinforceConfig(baseline=baseline, returns=returns)
    batch = module.make_batch(episodes, config, Axis())
    np.testing.assert_array_equal(batch.baseline, zeros)
