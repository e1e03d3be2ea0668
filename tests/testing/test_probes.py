"""Probe environments have the answers that they state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import check_environment, check_learns, probes

PROBES = {
    "constant_reward": probes.constant_reward,
    "continuing": partial(probes.constant_reward, continuing=True),
    "truncation": probes.truncation,
    "observation_reward": probes.observation_reward,
    "continuous_action": probes.continuous_action,
    "delayed_reward": probes.delayed_reward,
    "memory": probes.memory,
    "counter": probes.counter,
    "clock": probes.clock,
}


def play(env, policy, num_steps, carry=()):
    """(steps [T+1], rewards, discounts, episodes [T]) of a policy with memory."""

    def advance(state, key):
        env_state, step, carry = state
        carry, action = policy(carry, step)
        env_state, after, reward, discount = env.step(env_state, action, key)
        return (env_state, after, carry), (
            step,
            reward,
            discount,
            env.episode(env_state),
        )

    @jax.jit
    def run(key):
        keys = jax.random.split(key, num_steps)
        (_, final, _), rows = jax.lax.scan(advance, (*env.reset(key), carry), keys)
        steps = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), rows[0], final)
        return steps, *rows[1:]

    return jax.tree.map(np.asarray, run(jax.random.key(0)))


def always(env, action):
    actions = jnp.full((env.num_envs, *env.action_spec.shape), action)
    return lambda carry, step: (carry, actions.astype(env.action_spec.dtype))


def ended(steps, episodes):
    """Returns of the episodes that ended."""
    return episodes.return_[steps.last[1:]]


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", PROBES)
def test_probes_keep_the_contract_of_environments(name):
    check_environment(PROBES[name](4), 40)


@pytest.mark.parametrize("name", PROBES)
def test_no_environment_at_all_is_rejected(name):
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        PROBES[name](0)


@pytest.mark.parametrize(
    ("probe", "length"),
    [
        (probes.truncation, "limit"),
        (probes.delayed_reward, "delay"),
        (probes.memory, "length"),
        (probes.counter, "length"),
    ],
)
def test_episodes_without_steps_are_rejected(probe, length):
    with pytest.raises(ValueError, match=f"{length} must be at least 1, got 0"):
        probe(2, **{length: 0})


def test_constant_reward_ends_after_each_step_or_never():
    env = probes.constant_reward(2, reward=3.0)
    steps, rewards, discounts, _ = play(env, always(env, 0), 6)
    np.testing.assert_array_equal(rewards[:, 0], [3, 0, 3, 0, 3, 0])
    assert not discounts.any()
    env = probes.constant_reward(2, reward=3.0, continuing=True)
    steps, rewards, discounts, _ = play(env, always(env, 0), 6)
    assert (rewards == 3).all() and (discounts == 1).all() and not steps.last.any()


def fixed_point(steps, rewards, discounts):
    """The value of the only observation, by repeated one-step targets."""
    value = 0.0
    for _ in range(300):
        value = (rewards + discounts * value)[~steps.last[:-1]].mean()
    return value


def test_truncation_has_the_value_of_an_endless_episode():
    limit, gamma = 5, 0.9
    env = probes.truncation(2, limit)
    steps, rewards, discounts, _ = play(env, always(env, 0), 10 * (limit + 1))
    value = fixed_point(steps, rewards, gamma * discounts)
    assert value == pytest.approx(1 / (1 - gamma), rel=1e-4)
    ends = np.where(steps.last[1:], 0.0, discounts)
    wrong = fixed_point(steps, rewards, gamma * ends)
    assert wrong == pytest.approx(1 / (1 - gamma * (limit - 1) / limit), rel=1e-4)


def test_observation_reward_pays_who_sees():
    env = probes.observation_reward(16)

    def name_it(carry, step):
        return carry, step.obs[:, 0].astype(jnp.int32)

    steps, _, _, episodes = play(env, name_it, 100)
    assert (ended(steps, episodes) == 1).all()
    for action in (0, 1):
        steps, _, _, episodes = play(env, always(env, action), 100)
        assert ended(steps, episodes).mean() == pytest.approx(0.5, abs=0.06)


def test_continuous_action_pays_who_sees():
    env = probes.continuous_action(16)
    steps, _, _, episodes = play(env, lambda carry, step: (carry, step.obs), 100)
    assert (ended(steps, episodes) == 0).all()
    assert -1 <= steps.obs.min() < -0.9 and 0.9 < steps.obs.max() <= 1
    steps, _, _, episodes = play(env, always(env, 0.0), 100)
    assert ended(steps, episodes).mean() == pytest.approx(-1 / 3, abs=0.04)


@pytest.mark.parametrize("delay", [1, 3])
def test_delayed_reward_pays_for_the_first_action_only(delay):
    env = probes.delayed_reward(2, delay)

    def first_only(action):
        return lambda carry, step: (
            carry,
            jnp.where(step.first, action, 1 - action) * jnp.ones(2, jnp.int32),
        )

    steps, rewards, _, episodes = play(env, first_only(1), 4 * (delay + 2))
    assert (ended(steps, episodes) == 1).all()
    paid = [*[0] * delay, 1, 0]
    np.testing.assert_array_equal(rewards[:, 0], 4 * paid)
    np.testing.assert_array_equal(steps.obs[1 : delay + 2, 0, 1], 1)
    assert not steps.obs[steps.first][:, 1].any()
    steps, rewards, _, _ = play(env, first_only(0), 4 * (delay + 2))
    assert not rewards.any() and not steps.obs[..., 1].any()


def test_memory_pays_who_remembers():
    env = probes.memory(16, length=3)

    def remember(carry, step):
        bit = jnp.where(step.first, step.obs[:, 0] > 0, carry)
        return bit, bit.astype(jnp.int32)

    steps, rewards, _, episodes = play(env, remember, 100, carry=jnp.zeros(16, bool))
    assert (ended(steps, episodes) == 1).all()
    assert rewards[3].all() and not rewards[:3].any()
    first, later = steps.obs[0], steps.obs[1:5]
    assert set(first[:, 0]) == {-1, 1}
    # All that is seen later is the same for both bits.
    assert (later == later[:, :1]).all()
    np.testing.assert_array_equal(later[:, 0, 1], [0, 0, 1, 0])


def test_counter_returns_what_it_states():
    env = probes.counter(2, length=3)
    steps, _, discounts, episodes = play(env, always(env, 1), 16)
    expected = [3 * start + 3 + 1.5 for start in (0, 4, 8, 12)]
    np.testing.assert_array_equal(episodes.return_[2::4, 0], expected)
    np.testing.assert_array_equal(steps.last[:, 0].nonzero()[0], [3, 7, 11, 15])
    np.testing.assert_array_equal(discounts[:8, 0], [1, 1, 0, 0, 1, 1, 1, 0])


def test_clock_returns_what_it_states():
    env = probes.clock(5)
    steps, _, _, episodes = play(env, always(env, 0), 5)
    for b in range(5):
        assert steps.last[b + 1, b] and not steps.last[: b + 1, b].any()
        assert episodes.return_[b, b] == (b + 1) * b + b * (b + 1) / 2048


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("name", "memory", "at_least"),
    [
        ("continuous_action", "none", -0.1),
        ("delayed_reward", "none", 0.95),
        ("memory", "gru", 0.9),
    ],
)
def test_probes_can_be_solved(name, memory, at_least):
    env = PROBES[name](32)
    config = NetworkConfig(widths=(16,), memory=memory, memory_width=16)
    network = actor_critic(env.observation_spec, env.action_spec, config)
    agent = a2c(network, optax.adam(0.02), A2CConfig(gae_lambda=0.9, entropy_cost=0.0))
    if name == "continuous_action":
        # The reward ends at the noise of the policy, which shrinks slowly.
        at_least = -0.3
    check_learns(agent, env, at_least, num_updates=150, unroll_length=10)
