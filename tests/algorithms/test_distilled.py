"""Distillation against the fact sheet's numbers, and on teachers that do not move."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import random
from jaxrl_par.algorithms.distilled import DistilledConfig, distilled, loss
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.axis import Axis
from jaxrl_par.distributions import Categorical, DiagNormal
from jaxrl_par.networks import Network, NetworkConfig, actor_critic
from jaxrl_par.types import Box, Discrete, DistillationBatch, TimeStep, Trajectory

NO, YES = jnp.zeros((1, 1), bool), jnp.ones((1, 1), bool)


def told(outputs):
    """A network whose parameters are its outputs, for one row of one environment."""
    return Network(
        init=lambda key, step: outputs,
        initial_carry=lambda num_envs: (),
        apply=lambda params, carry, step: (params, carry),
        unroll=lambda params, carry, steps: (
            jax.tree.map(
                lambda x: jnp.broadcast_to(x, (*steps.first.shape, *x.shape[2:])),
                params,
            ),
            carry,
        ),
    )


def outputs(probabilities, value):
    logits = jnp.log(jnp.array(probabilities))[None, None]
    return Categorical(logits), jnp.full((1, 1), value)


ACTOR, LEARNER = outputs([0.7, 0.3], 0.4), outputs([0.5, 0.5], 1.0)
STEP = TimeStep(jnp.zeros((1, 1, 1)), NO, NO)


def gradient(config=DistilledConfig(), last=NO, teacher=LEARNER):
    """Loss, and gradients with respect to the actor's and the learner's outputs."""

    def total(actor, teacher):
        batch = DistillationBatch(STEP._replace(last=last), (), *teacher)
        return loss(actor, batch, told(ACTOR), config)[0]

    value, grads = jax.value_and_grad(total, argnums=(0, 1))(ACTOR, teacher)
    return float(value), *grads


def test_the_policy_term_is_that_of_the_fact_sheet():
    value, actor, learner = gradient(DistilledConfig(value_cost=0.0))
    assert value == pytest.approx(0.0822829, abs=1e-6)
    np.testing.assert_allclose(actor[0].logits[0, 0], [0.177933, -0.177933], atol=1e-6)
    assert not any(np.any(x) for x in jax.tree.leaves(learner))
    assert not np.any(actor[1])


@pytest.mark.slow
def test_the_value_term_is_that_of_the_fact_sheet():
    value, actor, learner = gradient(DistilledConfig(policy_cost=0.0))
    assert value == pytest.approx(0.18)
    np.testing.assert_allclose(actor[1], -0.6, rtol=1e-6)
    assert not any(np.any(x) for x in jax.tree.leaves(learner))
    assert not np.any(actor[0].logits)


def test_costs_weigh_the_terms():
    value, _, _ = gradient(DistilledConfig(policy_cost=2.0, value_cost=3.0))
    assert value == pytest.approx(2 * 0.0822829 + 3 * 0.18, abs=1e-6)


def test_rows_that_are_last_teach_nothing():
    value, actor, _ = gradient(last=YES)
    assert value == 0 and not any(np.any(x) for x in jax.tree.leaves(actor))


def test_who_agrees_with_the_teacher_learns_nothing():
    value, actor, _ = gradient(teacher=ACTOR)
    assert value == pytest.approx(0.0, abs=1e-6)
    for leaf in jax.tree.leaves(actor):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-6)


@pytest.mark.sample(1)
@pytest.mark.parametrize("cost", [2.0, 0.0, 1.0])
def test_the_learner_is_pulled_to_what_acted(cost):
    """With reward and values out of the way: the gradient of the logits is
    pi_L - pi_A."""
    config = ImpalaConfig(behaviour_cost=cost, entropy_cost=0.0, value_cost=0.0)
    network = told(outputs([0.5, 0.5], 0.0))
    agent = impala(network, optax.sgd(1.0), config)
    steps = jax.tree.map(lambda x: jnp.concatenate([x, x]), STEP)
    zero = jnp.zeros((1, 1))
    trajectory = Trajectory(
        steps,
        jnp.zeros((1, 1), jnp.int32),
        zero,
        zero,
        {"log_prob": jnp.log(jnp.full((1, 1), 0.7)), "policy": ACTOR[0]},
        (),
    )
    state = agent.init(random.key(0), STEP)
    grads, _ = agent.grad(state, trajectory, random.key(0), Axis())
    np.testing.assert_allclose(
        grads[0].logits[0, 0], cost * np.array([-0.2, 0.2]), atol=1e-6
    )
    ended = trajectory._replace(steps=steps._replace(last=jnp.ones((2, 1), bool)))
    grads, _ = agent.grad(state, ended, random.key(0), Axis())
    assert not np.any(grads[0].logits)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_a_teacher_that_stands_still_is_matched(memory):
    """Random logits for each of eight observations in a row."""
    length, num_actions = 8, 4
    config = NetworkConfig(widths=(32,), memory=memory, memory_width=32)
    network = actor_critic(Discrete(length), Discrete(num_actions), config)
    agent = distilled(network, optax.adam(0.02))
    first = jnp.zeros((length, 1), bool).at[0].set(True)
    steps = TimeStep(jnp.arange(length)[:, None], first, jnp.zeros_like(first))
    logits = 2 * jax.random.normal(random.key(1), (length, 1, num_actions))
    values = jax.random.normal(random.key(2), (length, 1))
    batch = DistillationBatch(
        steps, network.initial_carry(1), Categorical(logits), values
    )
    state = agent.init(random.key(0), jax.tree.map(lambda x: x[0], steps))

    def update(state, _):
        grads, info = agent.grad(state, batch, random.key(0), Axis())
        return agent.apply(state, grads, {}), info.metrics

    state, _ = jax.jit(lambda x: jax.lax.scan(update, x, length=400))(state)
    _, metrics = update(state, None)
    assert float(metrics["kl"].total / metrics["kl"].count) < 1e-3
    assert float(metrics["agreement"].total) == length
    (_, learned), _ = network.unroll(state.params, batch.carry, steps)
    np.testing.assert_allclose(learned, values, atol=0.1)


@pytest.mark.slow
def test_continuous_actions_are_distilled_too():
    network = actor_critic(Box((3,)), Box((2,)), NetworkConfig(widths=(8,)))
    agent = distilled(network, optax.adam(0.02))
    shape = (5, 2)
    flags = jnp.zeros(shape, bool)
    steps = TimeStep(jax.random.normal(random.key(1), (*shape, 3)), flags, flags)
    teacher = DiagNormal(jnp.full((*shape, 2), 0.5), jnp.full((*shape, 2), -1.0))
    batch = DistillationBatch(steps, (), teacher, jnp.ones(shape))
    state = agent.init(random.key(0), jax.tree.map(lambda x: x[0], steps))

    def update(state, _):
        grads, info = agent.grad(state, batch, random.key(0), Axis())
        return agent.apply(state, grads, {}), info.metrics["kl"]

    _, kl = jax.jit(lambda x: jax.lax.scan(update, x, length=300))(state)
    assert float(kl.total[-1]) < 0.02 * float(kl.total[0])


@pytest.mark.slow
def test_acting_leaves_what_the_teacher_needs():
    network = actor_critic(Box((3,)), Discrete(4), NetworkConfig(widths=(8,)))
    agent = distilled(network, optax.adam(0.02))
    flags = jnp.zeros(6, bool)
    step = TimeStep(jax.random.normal(random.key(1), (6, 3)), flags, flags)
    params = agent.init(random.key(0), step).params
    action, _, extras = agent.act(params, (), step, random.key(2))
    (policy, _), _ = network.apply(params, (), step)
    np.testing.assert_array_equal(extras["policy"].logits, policy.logits)
    np.testing.assert_array_equal(extras["log_prob"], policy.log_prob(action))


def test_costs_below_zero_are_refused():
    (problem,) = DistilledConfig(policy_cost=-1.0).problems()
    assert problem == "policy_cost must be at least 0, got -1.0"
    assert not DistilledConfig().problems()
