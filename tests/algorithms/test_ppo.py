"""PPO against its equations, and on probes whose answer is known."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import random, rollout
from jaxrl_par.algorithms.ppo import PPOConfig, make_batch, ppo
from jaxrl_par.axis import Axis
from jaxrl_par.loops import epochs
from jaxrl_par.networks import Network, NetworkConfig, actor_critic
from jaxrl_par.testing import check_agent, probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.types import TimeStep, Trajectory

SMALL = NetworkConfig(widths=(16,), memory_width=16, shared=False)


def make(env, network=SMALL, config=PPOConfig(), optimizer=None):
    net = actor_critic(env.observation_spec, env.action_spec, network)
    return net, ppo(net, optimizer or optax.adam(0.01), config)


def acted(env, agent, length=6):
    @jax.jit
    def act():
        workers = rollout.start(agent, env, random.key(0))
        state = agent.init(random.key(1), workers.step)
        unroll = partial(rollout.unroll, agent, env, state.params)
        return state, unroll(workers, random.key(2), length)[1]

    return act()


def prepared(agent, state, trajectory):
    return jax.jit(lambda s, t: agent.prepare(s, t, Axis()))(state, trajectory)


def mean_return(env, network, config, num_updates=100):
    _, agent = make(env, network, config)
    program = compiled(epochs(agent, 4, 2), env, 10)
    _, metrics = jax.jit(lambda key: scanned(program, num_updates)(program.init(key)))(
        random.key(0)
    )
    total, count = metrics["episode_return"]
    half = num_updates // 2
    return float(total[half:].sum() / count[half:].sum())


@pytest.mark.sample(1)
@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize("probe", [probes.observation_reward, probes.continuous_action])
def test_keeps_the_promises_of_an_agent(probe, memory):
    env = probe(4)
    _, agent = make(env, replace(SMALL, memory=memory))
    check_agent(agent, env)


def test_the_first_minibatch_follows_the_policy_gradient():
    """Where the policy has not moved, the ratio is 1 and nothing is clipped."""
    config = PPOConfig(normalize_advantages=False, entropy_cost=0.0, value_cost=0.0)
    env = probes.counter(3)
    net, agent = make(env, config=config)
    state, trajectory = acted(env, agent)
    batch = prepared(agent, state, trajectory)
    grads, info = jax.jit(partial(agent.grad, axis=Axis()))(state, batch, random.key(0))

    def policy_gradient(params):
        (policy, _), _ = net.unroll(params, (), trajectory.steps)
        policy = jax.tree.map(lambda x: x[:-1], policy)
        rows = policy.log_prob(trajectory.action) * batch.advantage.reshape(6, 3)
        return -jnp.sum(jnp.where(trajectory.steps.last[:-1], 0.0, rows)) / 18

    expected = jax.jit(jax.grad(policy_gradient))(state.params)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-7),
        grads,
        expected,
    )
    np.testing.assert_allclose(info.metrics["kl"].total, 0.0, atol=1e-5)
    assert info.metrics["clipped"].total == 0.0


def test_advantages_are_normalised_over_all_devices_and_targets_are_not():
    """With values 2 t + b of environment b, two of which share each of two devices."""
    rows, columns = np.mgrid[:4, :4]
    obs = jnp.float32(2 * rows + columns)[..., None]
    values = Network(
        init=lambda key, step: (),
        initial_carry=lambda num_envs: (),
        apply=lambda params, carry, step: ((None, step.obs[..., 0]), carry),
        unroll=lambda params, carry, steps: ((None, steps.obs[..., 0]), carry),
    )
    last = jnp.zeros((4, 4), bool).at[1, 2].set(True)
    trajectory = Trajectory(
        steps=TimeStep(obs, jnp.zeros((4, 4), bool), last),
        action=jnp.zeros((3, 4), jnp.int32),
        reward=jnp.where(last[:3], 0.0, jnp.arange(12.0).reshape(3, 4)),
        discount=jnp.where(last[:3], 0.0, 1.0),
        extras={"log_prob": jnp.full((3, 4), -1.0)},
        carry=(),
    )
    config = PPOConfig(gamma=0.5, gae_lambda=0.0)

    def make(axis, trajectory):
        return make_batch((), trajectory, values, config, axis)

    devices = jax.tree.map(lambda x: jnp.stack(jnp.split(x, 2, axis=1)), trajectory)
    batch = jax.vmap(partial(make, Axis("data")), axis_name="data")(devices)
    joined = jax.tree.map(
        lambda x: np.concatenate(x.reshape(2, 3, 2, *x.shape[2:]), axis=1), batch
    )
    v = np.asarray(obs[..., 0])
    errors = trajectory.reward + 0.5 * trajectory.discount * v[1:] - v[:-1]
    kept = ~np.asarray(last[:3])
    errors = np.where(kept, errors, 0.0)
    mean, deviation = errors[kept].mean(), errors[kept].std()
    expected = np.where(kept, (errors - mean) / deviation, 0.0)
    np.testing.assert_allclose(joined.advantage, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(joined.value, v[:-1])
    np.testing.assert_allclose(joined.target, errors + v[:-1], rtol=1e-5)
    np.testing.assert_array_equal(joined.steps.last, last[:3])


def test_minibatches_of_one_epoch_are_all_rows_once():
    """Summed over the minibatches, the gradient of an unmoved policy is the batch's."""
    env = probes.counter(4)
    _, agent = make(env, optimizer=optax.sgd(0.0))
    state, trajectory = acted(env, agent, length=8)
    batch = prepared(agent, state, trajectory)
    gradient = jax.jit(partial(agent.grad, axis=Axis()))
    whole, _ = gradient(state, batch, random.key(0))
    rows = random.permutation(random.key(3), 32).reshape(4, 8)
    parts = [
        gradient(state, jax.tree.map(lambda x: x[r], batch), random.key(0))[0]  # noqa: B023
        for r in rows
    ]
    mean = jax.tree.map(lambda *x: sum(x) / 4, *parts)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), mean, whole
    )


@pytest.mark.slow
def test_sequences_keep_their_memory_in_a_minibatch():
    env = probes.memory(4)
    net, agent = make(env, replace(SMALL, memory="lstm"))
    state, trajectory = acted(env, agent, length=7)
    carry = jax.tree.map(lambda x: random_like(x, random.key(5)), trajectory.carry)
    trajectory = trajectory._replace(carry=carry)
    batch = prepared(agent, state, trajectory)
    chosen = jnp.array([2, 0])
    part = jax.tree.map(lambda x: x[chosen], batch)
    rows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), part.steps)
    (_, values), _ = net.unroll(state.params, part.carry, rows)
    (_, all_values), _ = net.unroll(state.params, carry, trajectory.steps)
    np.testing.assert_allclose(values, all_values[:-1, chosen], rtol=1e-5, atol=1e-6)


def random_like(x, key):
    return jax.random.normal(key, x.shape)


@pytest.mark.slow
def test_solves_the_contextual_bandit():
    assert mean_return(probes.observation_reward(16), SMALL, PPOConfig()) > 0.95


@pytest.mark.slow
def test_remembers_with_memory():
    env = probes.memory(32)
    assert mean_return(env, replace(SMALL, memory="gru"), PPOConfig(), 200) > 0.9


def test_minibatches_must_divide_the_rows():
    env = probes.observation_reward(4)
    _, agent = make(env)
    program = compiled(epochs(agent, 1, 3), env, 5)
    run = program.init(random.key(0))
    with pytest.raises(ValueError, match="num_minibatches = 3 does not divide the 20"):
        program.step(run)


def test_wrong_numbers_are_named():
    problems = PPOConfig(gamma=1.5, gae_lambda=-0.1, clip=0.0).problems()
    assert len(problems) == 3
    assert any("gamma must be in [0, 1], got 1.5" in problem for problem in problems)
