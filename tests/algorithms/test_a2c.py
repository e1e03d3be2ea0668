"""A2C against its equations, on probes whose answer is known, and on CartPole."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import envs, random, rollout
from jaxrl_par.algorithms import a2c as module
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.axis import Axis
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.testing import check_agent, probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.types import TimeStep

SMALL = NetworkConfig(widths=(16,), memory_width=16)


def make(env, network=SMALL, config=A2CConfig(), optimizer=None):
    net = actor_critic(env.observation_spec, env.action_spec, network)
    return net, a2c(net, optimizer or optax.adam(0.01), config)


def train(env, network, config, num_updates, unroll_length=8, rate=0.02):
    net, agent = make(env, network, config, optax.adam(rate))
    program = compiled(agent, env, unroll_length)
    run, metrics = jax.jit(
        lambda key: scanned(program, num_updates)(program.init(key))
    )(random.key(0))
    returns = metrics["episode_return"]
    half = num_updates // 2
    mean_return = returns.total[half:].sum() / returns.count[half:].sum()
    return net, run, float(mean_return)


def unrolled(env, agent, length=6, seed=0):
    @jax.jit
    def act():
        workers = rollout.start(agent, env, random.key(seed))
        state = agent.init(random.key(seed + 1), workers.step)
        _, trajectory, _ = rollout.unroll(
            agent, env, state.params, workers, random.key(seed + 2), length
        )
        return state, trajectory

    return act()


def gradient(agent, state, batch):
    return jax.jit(partial(agent.grad, axis=Axis()))(state, batch, random.key(0))


def loss(params, batch, net, config):
    return jax.jit(partial(module.loss, network=net, config=config))(params, batch)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "lstm", "gru"])
@pytest.mark.parametrize("probe", [probes.observation_reward, probes.continuous_action])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_keeps_the_promises_of_an_agent(probe, memory, reduction):
    env = probe(4)
    config = A2CConfig(reduction=reduction)
    _, agent = make(env, replace(SMALL, memory=memory), config)
    check_agent(agent, env)


@pytest.mark.sample(1)
@pytest.mark.parametrize("n_step", [2, None])
def test_the_loss_follows_the_paper(n_step):
    """Algorithm S3 of Mnih et al. as a loop over rows, with the network's outputs."""
    config = A2CConfig(gae_lambda=1.0, n_step=n_step, gamma=0.9)
    env = probes.counter(2)
    net, agent = make(env, config=config)
    state, batch = unrolled(env, agent)
    (policy, values), _ = jax.jit(net.unroll)(state.params, (), batch.steps)
    log_probs, values = np.asarray(policy.log_probs), np.asarray(values)
    reward, discount = np.asarray(batch.reward), 0.9 * np.asarray(batch.discount)
    last, action = np.asarray(batch.steps.last), np.asarray(batch.action)
    total, (length, num_envs) = 0.0, reward.shape
    for b in range(num_envs):
        for t in range(length):
            if last[t, b]:
                continue
            target, weight, k = 0.0, 1.0, t
            while k < length and k < t + (n_step or length) and not last[k, b]:
                target += weight * reward[k, b]
                weight *= discount[k, b]
                k += 1
            target += weight * values[k, b]
            logs = log_probs[t, b]
            total += -logs[action[t, b]] * (target - values[t, b])
            total += 0.5 * 0.5 * (target - values[t, b]) ** 2
            total -= 0.01 * -np.sum(np.exp(logs) * logs)
    actual, _ = loss(state.params, batch, net, config)
    np.testing.assert_allclose(actual, total / (length * num_envs), rtol=1e-5)
    summed, _ = loss(state.params, batch, net, replace(config, reduction="sum"))
    np.testing.assert_allclose(summed, total, rtol=1e-5)


@pytest.mark.slow
def test_the_gradient_leaves_targets_alone():
    """The value gradient is that of a regression on fixed numbers."""
    config = A2CConfig(entropy_cost=0.0, value_cost=1.0)
    env = probes.constant_reward(2, continuing=True)
    net, agent = make(env, config=config)
    state, batch = unrolled(env, agent)
    (_, values), _ = jax.jit(net.unroll)(state.params, (), batch.steps)
    targets = jnp.stack(
        [
            sum(0.99**i for i in range(6 - t)) + 0.99 ** (6 - t) * values[6]
            for t in range(6)
        ]
    )

    def regression(params):
        (policy, v), _ = net.unroll(params, (), batch.steps)
        policy = jax.tree.map(lambda x: x[:-1], policy)
        advantages = targets - values[:-1]
        policy_loss = -jnp.mean(policy.log_prob(batch.action) * advantages)
        return policy_loss + 0.5 * jnp.mean(jnp.square(targets - v[:-1]))

    grads, _ = gradient(agent, state, batch)
    expected = jax.jit(jax.grad(regression))(state.params)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        grads,
        expected,
    )


@pytest.mark.slow
def test_learns_that_a_time_limit_is_no_end():
    config = A2CConfig(gamma=0.8, entropy_cost=0.0)
    env = probes.truncation(16)
    net, run, _ = train(env, SMALL, config, 400)
    _, step = env.reset(random.key(0))
    (_, values), _ = net.apply(run.learner.params, (), step)
    # 1 / (1 - gamma); an end after five steps would make it 3.36.
    np.testing.assert_allclose(values, 5.0, atol=0.3)


@pytest.mark.slow
def test_the_value_of_a_constant_reward_is_its_geometric_sum():
    config = A2CConfig(gamma=0.9, entropy_cost=0.0)
    env = probes.constant_reward(8, continuing=True)
    net, run, _ = train(env, SMALL, config, 400)
    _, step = env.reset(random.key(0))
    (_, values), _ = net.apply(run.learner.params, (), step)
    np.testing.assert_allclose(values, 10.0, atol=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [None, 3])
def test_solves_the_contextual_bandit(n_step):
    config = A2CConfig(entropy_cost=0.0, n_step=n_step)
    _, _, mean_return = train(probes.observation_reward(16), SMALL, config, 200)
    assert mean_return > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["gaussian", "squashed"])
def test_finds_continuous_actions(policy):
    env = probes.continuous_action(32)
    config = A2CConfig(entropy_cost=0.0)
    net, run, _ = train(env, replace(SMALL, policy=policy), config, 400)
    _, step = env.reset(random.key(5))
    (distribution, _), _ = net.apply(run.learner.params, (), step)
    np.testing.assert_allclose(distribution.mode(), step.obs, atol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["lstm", "gru"])
def test_remembers_with_memory_and_only_then(memory):
    env = probes.memory(32)
    config = A2CConfig(entropy_cost=0.001, gae_lambda=0.95)
    _, _, without = train(env, SMALL, config, 300, unroll_length=10, rate=0.01)
    network = replace(SMALL, memory=memory)
    _, _, with_memory = train(env, network, config, 300, unroll_length=10, rate=0.01)
    assert without < 0.7
    assert with_memory > 0.9


@pytest.mark.slow
def test_hyperparameters_can_be_vmapped():
    env = probes.observation_reward(4)

    def final_entropy(entropy_cost):
        _, agent = make(env, config=A2CConfig(entropy_cost=entropy_cost))
        program = compiled(agent, env, 8)
        _, metrics = scanned(program, 150)(program.init(random.key(0)))
        entropy = metrics["entropy"]
        return entropy.total[-1] / entropy.count[-1]

    greedy, uniform = jax.jit(jax.vmap(final_entropy))(jnp.array([0.0, 10.0]))
    assert greedy < 0.3 < 0.65 < uniform


@pytest.mark.slow
def test_previous_actions_and_rewards_are_read():
    env = previous_action_and_reward(probes.observation_reward(4))
    net, agent = make(env)
    state, batch = unrolled(env, agent)
    shown = TimeStep(batch.steps.obs, batch.steps.first, batch.steps.last)
    hidden = shown._replace(obs=shown.obs._replace(reward=shown.obs.reward + 1.0))
    assert not np.allclose(
        net.unroll(state.params, (), shown)[0][1],
        net.unroll(state.params, (), hidden)[0][1],
    )


@pytest.mark.slow
def test_learns_cartpole():
    """The README's main job, without its evaluation: the median of five seeds."""
    env = envs.make("CartPole-v1", 32)
    config = A2CConfig(gae_lambda=0.95, entropy_cost=0.0)
    num_updates = 3000
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=7e-3, max_grad_norm=1.0), num_updates * 32 * 32
    )
    _, agent = make(env, NetworkConfig(), config, optimizer)
    program = compiled(agent, env, 32)

    def final_return(key):
        _, metrics = scanned(program, num_updates)(program.init(key))
        total, count = metrics["episode_return"]
        return total[-100:].sum() / count[-100:].sum()

    train_one = jax.jit(final_return)
    returns = [float(train_one(key)) for key in jax.random.split(random.key(0), 5)]
    assert np.median(returns) > 475
