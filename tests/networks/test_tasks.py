"""What networks tell besides outputs, and networks for several tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import random
from jaxrl_par.networks import (
    NetworkConfig,
    TransformerConfig,
    actor_critic,
    of_tasks,
    policy_network,
    separate,
)
from jaxrl_par.testing import probes
from jaxrl_par.types import Box, Discrete, TaskObs, TimeStep

ENV = probes.counter(3)
STEPS = TimeStep(
    jnp.arange(24.0).reshape(4, 3, 2) / 8,
    jnp.zeros((4, 3), bool).at[2, 1].set(True),
    jnp.zeros((4, 3), bool),
)
FIRST = jax.tree.map(lambda x: x[0], STEPS)


@pytest.mark.sample(1)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("memory", ["none", "lstm", "gtrxl"])
def test_features_are_what_the_policys_layer_reads(memory, shared):
    transformer = TransformerConfig(1, 2, memory_length=4, mlp_width=8)
    config = NetworkConfig(
        widths=(5,), memory=memory, memory_width=6, transformer=transformer,
        shared=shared,
    )  # fmt: skip
    network = actor_critic(*ENV.specs, config)
    params = network.init(random.key(0), FIRST)
    carry = network.initial_carry(3)
    (policy, values), after = network.unroll(params, carry, STEPS)
    (told, features), same = network.with_features(params, carry, STEPS)
    head = params["params"]["_Heads_0"]
    logits = features @ head["policy"] + head["policy_bias"]
    assert features.shape == (4, 3, 5 if memory == "none" else 6)
    np.testing.assert_allclose(policy.logits, logits, rtol=1e-4, atol=1e-5)
    for x, y in zip(
        jax.tree.leaves((policy, values, after)), jax.tree.leaves((*told, same)),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(x, y)


def test_a_network_of_tasks_reads_what_is_shown_and_not_of_which_task():
    """Bit for bit that of the observation alone, but for actions that there are not."""
    allowed = jnp.array([[True, False], [True, True], [False, True]])
    shown = FIRST._replace(obs=TaskObs(FIRST.obs, jnp.arange(3), allowed))
    bits = Box((2,), np.dtype(bool), 0.0, 1.0)
    specs = TaskObs(ENV.observation_spec, Discrete(3), bits)
    config = NetworkConfig(widths=(5,))
    network = of_tasks(policy_network, specs, ENV.action_spec, config)
    alone = policy_network(*ENV.specs, config)
    params = network.init(random.key(0), shown)
    jax.tree.map(
        np.testing.assert_array_equal, params, alone.init(random.key(0), FIRST)
    )
    ((policy, _), _), ((expected, _), _) = (
        network.apply(params, (), shown), alone.apply(params, (), FIRST)
    )  # fmt: skip
    hidden = np.where(allowed, expected.logits, -np.inf)
    np.testing.assert_array_equal(policy.logits, hidden)
    other = shown._replace(obs=shown.obs._replace(task=jnp.zeros(3, jnp.int32)))
    (same, _), _ = network.apply(params, (), other)
    np.testing.assert_array_equal(policy.logits, same.logits)
    assert network.specs == (specs, ENV.action_spec)
    assert of_tasks(policy_network, *ENV.specs, config).specs == ENV.specs


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "gru"])
def test_separate_networks_have_the_policy_of_one_and_the_values_of_another(memory):
    """When they act and when they learn."""
    config = NetworkConfig(widths=(5,), memory=memory, memory_width=6)
    actor, critic = (actor_critic(*ENV.specs, config) for _ in range(2))
    both = separate(actor, critic)
    params, carry = both.init(random.key(0), FIRST), both.initial_carry(3)
    (policy, values), after = both.unroll(params, carry, STEPS)
    one, other = carry or ((), ())
    (expected, _), one = actor.unroll(params["actor"], one, STEPS)
    (_, judged), other = critic.unroll(params["critic"], other, STEPS)
    np.testing.assert_array_equal(policy.logits, expected.logits)
    np.testing.assert_array_equal(values, judged)
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves((one, other)), strict=True):
        np.testing.assert_array_equal(x, y)
    for t in range(4):
        step = jax.tree.map(lambda x, t=t: x[t], STEPS)
        (acted, value), carry = both.apply(params, carry, step)
        np.testing.assert_allclose(acted.logits, policy.logits[t], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(value, values[t], rtol=1e-4, atol=1e-6)
