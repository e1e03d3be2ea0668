"""Policies without JAX are found in networks that have them as a part."""

import jax
import numpy as np
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


def test_what_numpy_would_not_keep_or_know_is_none():
    assert separate(critic(MEMORY), critic()).plain is None
    assert separate(critic(), critic(MEMORY)).plain is None
    half = NetworkConfig(**SMALL, compute_dtype="bfloat16")
    assert plain(VECTOR, ARMS, half) is None
    fields = TaskObs(ARMS, ARMS, ARMS)  # any NamedTuple
    assert plain(VECTOR, fields, CONFIG) is None
    assert plain(VECTOR, {"one": [fields]}, CONFIG) is None
