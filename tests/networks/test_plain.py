"""Policies without JAX are found in networks that have them as a part."""

import jax
import numpy as np
import optax
import pytest
from exported import (
    ARMS,
    FREE,
    SMALL,
    VECTOR,
    B,
    assert_close,
    parameters,
    row,
    stream,
)

from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.trust_region import trpo
from jaxrl_par.algorithms.vmpo import vmpo
from jaxrl_par.networks import (
    NetworkConfig,
    actor_critic,
    asymmetric,
    policy_network,
    separate,
)
from jaxrl_par.networks.plain import plain
from jaxrl_par.numpy_actor import Actor
from jaxrl_par.types import TaskObs

CONFIG = NetworkConfig(**SMALL)
MEMORY = NetworkConfig(**SMALL, memory="gru")


def critic(config=CONFIG):
    return actor_critic(VECTOR, FREE, config)


NETWORKS = {
    "policy_network": lambda: policy_network(VECTOR, FREE, MEMORY),
    "asymmetric": lambda: asymmetric(critic(MEMORY), critic(MEMORY)),
    "separate": lambda: separate(policy_network(VECTOR, FREE, CONFIG), critic()),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_policy_of_a_larger_network_is_exported_alone(name):
    network, step = NETWORKS[name](), row(stream(VECTOR), 0)
    params = parameters(network, step)
    arrays = network.plain.arrays(params)
    assert not any("critic." in name for name in arrays)
    actor = Actor(
        network.plain.described(), {name: np.asarray(x) for name, x in arrays.items()}
    )
    carry = network.initial_carry(B)
    (policy, _), _ = jax.jit(network.apply)(params, carry, step)
    remembered = tuple(np.asarray(x) for x in jax.tree.leaves(carry))
    found, _ = actor.distribution(step.obs, step.first, remembered)
    assert_close(found, policy._asdict())


def test_who_keeps_less_than_jax_does_is_only_exported():
    """A critic's memory, or the names of a NamedTuple."""
    assert separate(critic(), critic()).plain.whole
    assert not separate(critic(MEMORY), critic()).plain.whole
    assert not separate(critic(), critic(MEMORY)).plain.whole
    apart = NetworkConfig(**SMALL, memory="gru", shared=False)
    assert not critic(apart).plain.whole and critic(MEMORY).plain.whole
    fields = TaskObs(ARMS, ARMS, ARMS)  # any NamedTuple
    for action in (fields, {"one": [fields]}):
        assert not plain(VECTOR, action, CONFIG).whole
    network = critic(apart)
    agent = a2c(network, optax.sgd(0.1))
    assert agent.acts_plainly is None and agent.exportable is not None
    assert normalize_observations(agent).exportable is not None
    assert normalize_observations(agent).acts_plainly is None
    assert agent._replace(act=agent.greedy).exportable is None


def test_agents_with_a_policy_of_their_own_to_follow_are_exportable():
    optimizer = optax.sgd(0.1)
    apart = (policy_network(VECTOR, FREE, CONFIG), critic())
    for agent in (vmpo(critic(), optimizer), trpo(*apart, optimizer)):
        assert agent.acts_plainly.log_prob and not agent.acts_plainly.policy


def test_what_numpy_does_not_know_is_none():
    half = NetworkConfig(**SMALL, compute_dtype="bfloat16")
    assert plain(VECTOR, ARMS, half) is None
