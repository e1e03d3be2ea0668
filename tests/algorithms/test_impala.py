"""IMPALA against its equations, its corrections on stale data, and on probes."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import envs, random, rollout
from jaxrl_par.algorithms import impala as module
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.axis import Axis
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.loops import epochs
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.testing import check_agent, probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.types import TimeStep, Trajectory

SMALL = NetworkConfig(widths=(16,), memory_width=16)


def make(env, network=SMALL, config=ImpalaConfig(), optimizer=None):
    net = actor_critic(env.observation_spec, env.action_spec, network)
    return net, impala(net, optimizer or optax.adam(0.01), config)


def train(env, network, config, num_updates, unroll_length=8, rate=0.02):
    _, agent = make(env, network, config, optax.adam(rate))
    program = compiled(agent, env, unroll_length)
    _, metrics = jax.jit(lambda key: scanned(program, num_updates)(program.init(key)))(
        random.key(0)
    )
    returns = metrics["episode_return"]
    half = num_updates // 2
    return float(returns.total[half:].sum() / returns.count[half:].sum())


def stale(env, config=ImpalaConfig(), network=SMALL, length=7):
    """A state, and rows that another state acted."""
    net, agent = make(env, network, config)

    @jax.jit
    def act():
        workers = rollout.start(agent, env, random.key(0))
        old, new = (agent.init(random.key(i), workers.step) for i in (1, 2))
        # Both start near uniform: without noise their policies would hardly differ.
        leaves, tree = jax.tree.flatten(new.params)
        keys = jax.random.split(random.key(4), len(leaves))
        leaves = [
            x + jax.random.normal(key, x.shape)
            for x, key in zip(leaves, keys, strict=True)
        ]
        new = new._replace(params=jax.tree.unflatten(tree, leaves))
        _, trajectory, _ = rollout.unroll(
            agent, env, old.params, workers, random.key(3), length
        )
        return new, trajectory

    return net, agent, *act()


def fresh(env, agent):
    """A state, and rows that it acted."""

    @jax.jit
    def act():
        workers = rollout.start(agent, env, random.key(0))
        state = agent.init(random.key(1), workers.step)
        unroll = partial(rollout.unroll, agent, env, state.params)
        return state, unroll(workers, random.key(2), 9)[1]

    return act()


def gradient(agent, state, batch):
    return jax.jit(partial(agent.grad, axis=Axis()))(state, batch, random.key(0))


def loss(params, batch, net, config):
    return jax.jit(partial(module.loss, network=net, config=config))(params, batch)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize("probe", [probes.observation_reward, probes.continuous_action])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_keeps_the_promises_of_an_agent(probe, memory, reduction):
    env = probe(4)
    _, agent = make(
        env, replace(SMALL, memory=memory), ImpalaConfig(reduction=reduction)
    )
    check_agent(agent, env)


@pytest.mark.sample(1)
@pytest.mark.parametrize("max_abs_reward", [0.5, None])
@pytest.mark.parametrize("correction", ["vtrace", "one_step", "epsilon", "none"])
def test_the_loss_follows_the_paper(correction, max_abs_reward):
    """Section 4.2 and the variants of 5.2.2, as a loop over rows."""
    config = ImpalaConfig(
        gamma=0.9, vtrace_lambda=0.8, max_rho=1.3, max_c=0.9, max_policy_rho=1.1,
        correction=correction, epsilon=0.05, reward_scale=2.0,
        max_abs_reward=max_abs_reward,
    )  # fmt: skip
    net, _, state, batch = stale(probes.counter(2), config)
    (policy, values), _ = jax.jit(net.unroll)(state.params, (), batch.steps)
    log_probs, v = np.asarray(policy.log_probs), np.asarray(values)
    mu = np.asarray(batch.extras["log_prob"])
    reward, discount = 2 * np.asarray(batch.reward), 0.9 * np.asarray(batch.discount)
    if max_abs_reward:
        assert np.abs(reward).max() > max_abs_reward
        reward = np.clip(reward, -max_abs_reward, max_abs_reward)
    last, action = np.asarray(batch.steps.last), np.asarray(batch.action)
    total, (length, num_envs) = 0.0, reward.shape
    for b in range(num_envs):
        target, error = v[length, b], 0.0
        for t in reversed(range(length)):
            if last[t, b]:
                target, error = v[t, b], 0.0
                continue
            logs = log_probs[t, b]
            ratio = np.exp(logs[action[t, b]] - mu[t, b])
            rho, c, weight = min(1.3, ratio), 0.8 * min(0.9, ratio), min(1.1, ratio)
            if correction != "vtrace":
                rho, c = 1.0, 0.8
            if correction in ("epsilon", "none"):
                weight = 1.0
            following = 0.2 * v[t + 1, b] + 0.8 * target
            advantage = weight * (reward[t, b] + discount[t, b] * following - v[t, b])
            delta = rho * (reward[t, b] + discount[t, b] * v[t + 1, b] - v[t, b])
            error = delta + discount[t, b] * c * error
            target = v[t, b] + error
            log_prob = logs[action[t, b]]
            if correction == "epsilon":
                log_prob = np.log(np.exp(log_prob) + 0.05)
            total += -log_prob * advantage
            total += 0.5 * 0.5 * (target - v[t, b]) ** 2
            total -= 0.01 * -np.sum(np.exp(logs) * logs)
    actual, _ = loss(state.params, batch, net, config)
    np.testing.assert_allclose(actual, total / (length * num_envs), rtol=1e-4)
    summed, _ = loss(state.params, batch, net, replace(config, reduction="sum"))
    np.testing.assert_allclose(summed, total, rtol=1e-4)


@pytest.mark.parametrize(
    ("correction", "rho", "policy_rho"),
    [("vtrace", 2.0, 0.5), ("one_step", 1.0, 0.5), ("epsilon", 1, 1), ("none", 1, 1)],
)
def test_a_single_row_is_weighed_as_its_correction_says(correction, rho, policy_rho):
    """With a ratio of 3, above all bars, and a reward of 2 * 3 that is clipped to 5."""
    flags = jnp.zeros((2, 1), bool)
    trajectory = Trajectory(
        steps=TimeStep(jnp.zeros((2, 1)), flags, flags),
        action=jnp.zeros((1, 1), jnp.int32),
        reward=jnp.full((1, 1), 3.0),
        discount=jnp.ones((1, 1)),
        extras={},
        carry=(),
    )
    config = ImpalaConfig(
        gamma=0.5, max_rho=2.0, max_policy_rho=0.5, correction=correction,
        reward_scale=2.0, max_abs_reward=5.0,
    )  # fmt: skip
    log_ratios, values = jnp.full((1, 1), np.log(3.0)), jnp.array([[1.0], [4.0]])
    found = module._estimates(trajectory, log_ratios, values, config)
    error = 5.0 + 0.5 * 4.0 - 1.0
    np.testing.assert_allclose(found.targets, 1.0 + rho * error, rtol=1e-6)
    np.testing.assert_allclose(found.advantages, policy_rho * error, rtol=1e-6)


@pytest.mark.sample(1)
@pytest.mark.parametrize(("memory", "lambda_"), [("none", 0.7), ("lstm", 1.0)])
def test_without_lag_it_is_a2c(memory, lambda_):
    """On policy V-trace is the return of the same lambda: the same gradient."""
    env, network = probes.counter(4), replace(SMALL, memory=memory)
    net, agent = make(env, network, ImpalaConfig(vtrace_lambda=lambda_))
    state, batch = fresh(env, agent)
    ours, info = gradient(agent, state, batch)
    other = a2c(net, optax.adam(0.01), A2CConfig(gae_lambda=lambda_))
    theirs, _ = gradient(other, state, batch)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        ours,
        theirs,
    )
    rho = info.metrics["rho"]
    np.testing.assert_allclose(rho.total, rho.count, rtol=1e-5)


@pytest.mark.slow
def test_the_recorded_probability_is_that_of_the_policy_that_acted():
    env = probes.counter(4)
    net, agent = make(env, replace(SMALL, memory="lstm"))
    state, batch = fresh(env, agent)
    (policy, _), _ = jax.jit(net.unroll)(state.params, batch.carry, batch.steps)
    policy = jax.tree.map(lambda x: x[:-1], policy)
    np.testing.assert_allclose(
        batch.extras["log_prob"], policy.log_prob(batch.action), rtol=1e-5, atol=1e-6
    )


def test_targets_and_weights_carry_no_gradient():
    """The gradient is that of log-probabilities and values under fixed weights."""
    config = ImpalaConfig(entropy_cost=0.0, value_cost=1.0)
    net, agent, state, batch = stale(probes.counter(2), config)
    (policy, values), _ = jax.jit(net.unroll)(state.params, (), batch.steps)
    head = jax.tree.map(lambda x: x[:-1], policy)
    ratios = head.log_prob(batch.action) - batch.extras["log_prob"]
    ratios = jnp.where(batch.steps.last[:-1], 0.0, ratios)
    fixed = module._estimates(batch, ratios, values, config)
    weight = ~batch.steps.last[:-1]

    def regression(params):
        (policy, v), _ = net.unroll(params, (), batch.steps)
        policy = jax.tree.map(lambda x: x[:-1], policy)
        rows = -policy.log_prob(batch.action) * fixed.advantages
        rows += 0.5 * jnp.square(fixed.targets - v[:-1])
        return jnp.mean(rows * weight)

    grads, _ = gradient(agent, state, batch)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        grads,
        jax.jit(jax.grad(regression))(state.params),
    )


@pytest.mark.slow
def test_metrics_tell_how_stale_the_data_are():
    _, agent, state, batch = stale(probes.counter(8), ImpalaConfig(max_rho=1.0))
    _, info = gradient(agent, state, batch)
    rho, clipped = info.metrics["rho"], info.metrics["rho_clipped"]
    assert 0 < rho.total / rho.count < 0.95
    assert 0 < clipped.total / clipped.count < 1


def test_an_ignored_action_cannot_spoil_the_loss():
    """On a `last` row the ratio may be anything: not even a number, where an action is
    impossible to both policies."""
    net, _, state, batch = stale(probes.counter(4))
    last = batch.steps.last[:-1]
    assert last.any()
    log_prob = jnp.where(last, jnp.nan, batch.extras["log_prob"])
    spoilt = batch._replace(extras={"log_prob": log_prob})
    endless = float("inf")
    config = ImpalaConfig(
        correction="one_step", max_rho=endless, max_policy_rho=endless
    )
    good, _ = loss(state.params, batch, net, config)
    bad, metrics = loss(state.params, spoilt, net, config)
    np.testing.assert_array_equal(good, bad)
    assert all(np.isfinite(x.total) for x in metrics.values())
    # A weight of 0 keeps what is infinite out of the loss, and not out of its gradient.
    agent = impala(net, optax.adam(0.01), config)
    grads = [gradient(agent, state, rows)[0] for rows in (batch, spoilt)]
    jax.tree.map(np.testing.assert_array_equal, *grads)


@pytest.mark.sample(1)
@pytest.mark.parametrize("correction", ["vtrace", "one_step"])
def test_only_a_correction_finds_the_better_of_two_arms(correction):
    """Worth 1.0 and 0.9, but nine in ten rows are of the worse one.

    At a uniform pi the corrected gradient points to the better arm; without correction
    it follows what was done most.
    """
    num_rows = 20_000
    action = jax.random.bernoulli(random.key(0), 0.9, (1, num_rows)).astype(jnp.int32)
    flags = jnp.zeros((2, num_rows), bool)
    batch = Trajectory(
        TimeStep((), flags, flags), action, jnp.where(action == 1, 0.9, 1.0),
        jnp.zeros((1, num_rows)), {}, (),
    )  # fmt: skip
    log_ratios = jnp.log(0.5 / jnp.where(action == 1, 0.9, 0.1))

    def slope(config):
        """Along the logit of the better arm."""
        values = jnp.zeros((2, num_rows))
        advantages = module._estimates(batch, log_ratios, values, config).advantages
        return jnp.mean(advantages * jnp.where(action == 0, 0.5, -0.5))

    loose = ImpalaConfig(correction=correction, max_rho=10.0, max_policy_rho=10.0)
    assert slope(loose) > 0.01
    assert slope(ImpalaConfig(correction="none")) < -0.3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ImpalaConfig(gamma=1.5), "gamma"),
        (ImpalaConfig(vtrace_lambda=-0.1), "vtrace_lambda"),
        (ImpalaConfig(max_rho=0.5), "max_rho must be at least max_c"),
        (ImpalaConfig(max_policy_rho=0.0), "max_policy_rho must be above 0"),
        (ImpalaConfig(max_abs_reward=-1.0), "max_abs_reward must be above 0"),
        (ImpalaConfig(epsilon=0.0), "epsilon"),
    ],
)
def test_wrong_values_are_named(config, message):
    assert any(message in problem for problem in config.problems())
    assert not ImpalaConfig().problems()


@pytest.mark.slow
def test_learns_what_to_do_from_what_it_sees():
    assert train(probes.observation_reward(16), SMALL, ImpalaConfig(), 150) > 0.9


@pytest.mark.slow
def test_learns_with_memory_what_cannot_be_seen():
    network = replace(SMALL, memory="lstm")
    env = previous_action_and_reward(probes.memory(16, length=3))
    assert train(env, network, ImpalaConfig(), 300, rate=0.01) > 0.8


@pytest.mark.slow
def test_learns_with_the_papers_optimizer():
    """RMSProp with epsilon inside the root, linear decay and a summed loss."""
    env = probes.observation_reward(16)
    net = actor_critic(env.observation_spec, env.action_spec, SMALL)
    config = OptimizerConfig("rmsprop", 0.02, max_grad_norm=40.0, epsilon=0.1)
    agent = impala(
        net, make_optimizer(config, 150 * 8 * 16), ImpalaConfig(reduction="sum")
    )
    program = compiled(agent, env, 8)
    _, metrics = jax.jit(lambda key: scanned(program, 150)(program.init(key)))(
        random.key(0)
    )
    returns = metrics["episode_return"]
    assert returns.total[75:].sum() / returns.count[75:].sum() > 0.9


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_learns_breakout():
    """The README's first task, with 1 M of its steps; the median of three seeds."""
    env = envs.make("Breakout-MinAtar", 64)
    network = NetworkConfig(torso="mlp", activation="relu")
    net = actor_critic(env.observation_spec, env.action_spec, network)
    num_updates, passes, minibatches = 1_000_000 // (64 * 128), 4, 8
    optimizer = make_optimizer(OptimizerConfig(learning_rate=5e-3), 1_000_000)
    config = ImpalaConfig(vtrace_lambda=0.95, behaviour_cost=1.0)
    learner = epochs(impala(net, optimizer, config), passes, minibatches)
    program = compiled(learner, env, 128)
    train = jax.jit(lambda key: scanned(program, num_updates)(program.init(key))[1])
    tail = num_updates // 10
    scores = []
    for seed in range(3):
        returns = train(random.key(seed))["episode_return"]
        scores.append(returns.total[-tail:].sum() / returns.count[-tail:].sum())
    assert np.median(scores) > 20


@pytest.mark.slow
def test_the_pull_to_what_acted_begins_with_the_second_pass():
    """At zero lag KL(mu || pi) is at its minimum: its gradient is 0."""
    env = probes.counter(4)
    optimizer = optax.adam(0.5)
    _, pulled = make(env, config=ImpalaConfig(behaviour_cost=3.0), optimizer=optimizer)
    _, free = make(env, optimizer=optimizer)
    state, batch = fresh(env, pulled)
    grads, plain = (gradient(x, state, batch)[0] for x in (pulled, free))
    distance = optax.tree.norm(jax.tree.map(jnp.subtract, grads, plain))
    assert distance < 1e-5 * optax.tree.norm(plain)

    moved = jax.jit(free.apply)(state, plain, {})
    grads, plain = (gradient(x, moved, batch)[0] for x in (pulled, free))
    distance = optax.tree.norm(jax.tree.map(jnp.subtract, grads, plain))
    assert distance > 0.1 * optax.tree.norm(plain)


def test_a_correction_without_a_bar_weighs_an_advantage_of_zero_with_zero():
    """Also where pi/mu overflows: infinity times 0 is no number."""
    steps = TimeStep(*[jnp.zeros((2, 1), x) for x in (float, bool, bool)])
    trajectory = Trajectory(
        steps=steps, action=jnp.zeros((1, 1), jnp.int32), reward=jnp.zeros((1, 1)),
        discount=jnp.ones((1, 1)), extras={}, carry=(),
    )  # fmt: skip
    config = ImpalaConfig(correction="one_step", max_policy_rho=np.inf)
    found = module._estimates(
        trajectory, jnp.full((1, 1), 100.0), jnp.zeros((2, 1)), config
    )
    assert float(found.advantages[0, 0]) == 0.0
