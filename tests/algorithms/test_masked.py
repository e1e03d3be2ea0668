"""Losses and targets where masks allow little, or nothing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import random, returns, rollout
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.dqn import DQNConfig, dqn
from jaxrl_par.algorithms.dqn.targets import best, targets
from jaxrl_par.algorithms.episodic.acting import largest, possible
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.ppo import PPOConfig, ppo
from jaxrl_par.algorithms.q_learning import QConfig, q_learning
from jaxrl_par.algorithms.reinforce import reinforce
from jaxrl_par.algorithms.trust_region import trpo
from jaxrl_par.algorithms.vmpo import vmpo
from jaxrl_par.axis import Axis
from jaxrl_par.networks import (
    NetworkConfig,
    actor_critic,
    policy_network,
    q_network,
    separate,
)
from jaxrl_par.testing import check_agent, choices
from jaxrl_par.types import Masked

SMALL, INF = NetworkConfig(widths=(8,)), np.inf
FEW = partial(choices.few_of_many, rooms=4, doors=2, length=3)
SGD = optax.sgd(0.1)


def policy(env, network=actor_critic):
    return network(*env.specs, SMALL)


AGENTS = {
    "a2c": lambda env: a2c(policy(env), SGD),
    "normalised": lambda env: normalize_observations(a2c(policy(env), SGD)),
    "ppo": lambda env: ppo(policy(env), SGD),
    "impala": lambda env: impala(policy(env), SGD, ImpalaConfig(behaviour_cost=0.1)),
    "reinforce": lambda env: reinforce(policy(env), SGD),
    "vmpo": lambda env: vmpo(policy(env), SGD),
    "separate": lambda env: a2c(separate(policy(env), policy(env)), SGD),
}
VALUES = {
    "q": lambda env: q_learning(policy(env, q_network), SGD, QConfig(method="q")),
    "sarsa": lambda env: q_learning(
        policy(env, q_network), SGD, QConfig(method="sarsa")
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", [FEW, choices.pairs, choices.parts])
@pytest.mark.parametrize("name", AGENTS)
def test_agents_keep_their_contract_where_final_rows_allow_nothing(name, make):
    """S2: final masks are zeros; gradients are finite, and their rows add nothing."""
    env = make(4)
    check_agent(AGENTS[name](env), env)


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUES)
def test_values_keep_their_contract_where_final_rows_allow_nothing(name):
    env = FEW(4)
    check_agent(VALUES[name](env), env)


def acted(agent, env, length=8, seed=0):
    """(state, trajectory) of a new agent."""
    start_key, key, act_key = jax.random.split(random.key(seed), 3)
    streams = rollout.start(agent, env, start_key)
    state = agent.init(key, streams.step)
    params = agent.params(state)
    act = jax.jit(partial(rollout.unroll, agent, env, length=length))
    return state, act(params, streams, act_key)[1]


def gradient(agent, state, trajectory):
    def call(trajectory):
        batch = agent.prepare(state, trajectory, Axis())
        grads, info = agent.grad(state, batch, random.key(0), Axis())
        return grads, info.metrics

    return jax.jit(call)(trajectory)


def with_final_masks(trajectory, allowed):
    """Where a step is last everything is allowed, or nothing."""
    steps = trajectory.steps
    last = steps.last.reshape(*steps.last.shape, *[1] * (steps.obs.allowed.ndim - 2))
    mask = jnp.where(last, allowed, steps.obs.allowed)
    return trajectory._replace(
        steps=steps._replace(obs=Masked(steps.obs.obs, mask)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["impala", "ppo", "q"])
def test_what_a_final_row_allows_changes_nothing(name):
    """S2: no loss, entropy, divergence, maximum or gradient is of such a row."""
    env = FEW(4)
    agent = (AGENTS | VALUES)[name](env)
    state, trajectory = acted(agent, env)
    assert (
        trajectory.rows.last.any()
        and not trajectory.steps.obs.allowed[trajectory.steps.last].any()
    )
    found = [
        gradient(agent, state, with_final_masks(trajectory, x)) for x in (False, True)
    ]
    leaves = [jax.tree.leaves(x) for x in found]
    for x, y in zip(*leaves, strict=True):
        assert np.isfinite(x).all()
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_at_zero_lag_a_single_action_has_ratio_1_and_no_gradient():
    """S5: without the mask when learning the ratio is 1/4 and the entropy 1.386."""
    env = FEW(4, rooms=4, doors=1)
    agent = impala(policy(env), SGD, ImpalaConfig(value_cost=0.0, entropy_cost=0.1))
    state, trajectory = acted(agent, env)
    grads, metrics = gradient(agent, state, trajectory)
    assert all(not np.any(x) for x in jax.tree.leaves(grads))
    rho, entropy = metrics["rho"], metrics["entropy"]
    assert rho.total == rho.count > 0 and entropy.total == 0
    bare = actor_critic(env.observation_spec.obs, env.action_spec, SMALL)
    steps = trajectory.rows._replace(obs=trajectory.rows.obs.obs)
    (unmasked, _), _ = bare.unroll(state.params, (), steps)
    np.testing.assert_allclose(unmasked.entropy(), 1.386, atol=1e-2)


def reached(reward=1.0, discount=0.9):
    one = jnp.ones((1, 1))
    return returns.Reached(reward * one, discount * one, jnp.ones((1, 1), jnp.int32))


@pytest.mark.parametrize(
    ("online", "target", "expected"),
    [
        # Reward 1, gamma 0.9: 5.5 without the mask.
        ([-INF, 2.0], [-INF, 2.0], 2.8),
        # Double: 1.9 without a mask, 7.3 for the target's own maximum.
        ([-INF, 2.0, 3.0], [-INF, 7.0, 4.0], 4.6),
        # Nothing is possible: what would be bootstrapped is 0.
        ([-INF, -INF], [-INF, -INF], 1.0),
    ],
)
def test_targets_take_what_the_next_observation_allows(online, target, expected):
    """S3."""
    config = DQNConfig()
    kind = config.kind()
    rows = [jnp.array(x)[None, None] for x in (target, online)]
    made = targets(reached(), best(*rows, kind), kind, config)
    assert float(made.located[0, 0]) == pytest.approx(expected, abs=1e-6)


def test_tables_take_the_largest_of_what_is_allowed():
    """S3 and S6, of values that are all below 0."""
    values = jnp.array([[-3.0, -1.0, 5.0]] * 2)
    obs = Masked(jnp.zeros((2, 1)), jnp.array([[True, True, False], [False] * 3]))
    assert largest(values, obs).tolist() == [-1.0, 0.0]
    assert jnp.argmax(possible(values, obs), -1).tolist() == [1, 0]
    assert largest(values, obs.obs).tolist() == [5.0, 5.0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["expected", "categorical", "quantile"])
def test_dqn_learns_finite_values_of_masked_rows(kind):
    env, config = FEW(4), DQNConfig(values=kind, num_atoms=5)
    atoms = None if kind == "expected" else 5
    network = q_network(*env.specs, SMALL, dueling=True, num_atoms=atoms)
    agent = dqn(network, SGD, config)
    state, trajectory = acted(agent, env)
    found = [
        gradient(agent, state, with_final_masks(trajectory, x)) for x in (False, True)
    ]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found[0]))
    # What ends the episode is not bootstrapped from, whatever it allows.
    for x, y in zip(*(jax.tree.leaves(grads) for grads, _ in found), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("make", [FEW, choices.pairs, choices.parts])
def test_natural_gradients_of_masked_policies_are_finite(make):
    """Fisher's products differentiate logits of -inf twice."""
    env = make(4)
    agent = trpo(policy(env, policy_network), policy(env), SGD)
    state, trajectory = acted(agent, env)
    step, metrics = gradient(agent, state, trajectory)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((step, metrics)))
    assert any(np.any(x) for x in jax.tree.leaves(step))


@pytest.mark.slow
def test_a_row_without_an_action_is_counted_unless_it_is_last():
    env = FEW(4)

    def nothing(step):
        return step._replace(obs=Masked(step.obs.obs, step.obs.allowed & False))

    def wrong(env_state, action, key):
        env_state, step, *paid = env.step(env_state, action, key)
        return env_state, nothing(step), *paid

    found = []
    for made in (env, env._replace(step=wrong)):
        agent = a2c(policy(made), SGD)
        streams = rollout.start(agent, made, random.key(0))
        params = agent.init(random.key(1), streams.step).params
        *_, ended = rollout.unroll(agent, made, params, streams, random.key(2), 6)
        found.append(ended.stuck)
    right, stuck = found
    assert right.total == 0 and right.count > 0
    # All but the four rows that reset showed.
    assert stuck.total == stuck.count - 4


@pytest.mark.slow
def test_ppo_has_one_ratio_for_all_parts_together():
    """S7 in the loss: one ratio a row of an action of two parts."""
    env = choices.parts(2)
    agent = ppo(policy(env), SGD, PPOConfig())
    state, trajectory = acted(agent, env, length=2)
    batch = agent.prepare(state, trajectory, Axis())
    assert batch.log_prob.shape == (4,) and batch.action["steer"].shape == (4, 1)
    _, metrics = gradient(agent, state, trajectory)
    assert metrics["clipped"].total == 0 and abs(metrics["kl"].total) < 1e-5
