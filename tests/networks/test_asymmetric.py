"""An actor and a critic that are two networks."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import Network, asymmetric
from jaxrl_par.types import Box, Discrete, TimeStep

STEPS = TimeStep(jnp.zeros((3, 2, 1)), *(jnp.zeros((3, 2), bool),) * 2)


def adding(number):
    """Adds a parameter to its memory; policy and value are the memory after a row."""

    def apply(params, carry, step):
        carry = carry + params
        return (carry, carry + number), carry

    def unroll(params, carry, steps):
        rows = [carry + params * (t + 1) for t in range(len(steps.first))]
        return (jnp.stack(rows), jnp.stack(rows) + number), rows[-1]

    return Network(lambda key, step: jnp.float32(number), jnp.zeros, apply, unroll)


def test_the_policy_is_of_one_and_the_values_are_of_the_other_with_its_own_memory():
    network = asymmetric(adding(1), adding(100))
    params = {"actor": jnp.float32(1), "critic": jnp.float32(10)}
    start = (jnp.zeros(2), jnp.full(2, 5.0))
    (policy, values), after = network.unroll(params, start, STEPS)
    np.testing.assert_array_equal(policy[:, 0], [1, 2, 3])
    np.testing.assert_array_equal(values[:, 0], [115, 125, 135])
    np.testing.assert_array_equal(after, [[3, 3], [35, 35]])
    (policy, values), carry = network.apply(params, network.initial_carry(2), STEPS)
    np.testing.assert_array_equal([policy, values, carry], [[1, 1], [0, 0], [1, 1]])


def test_a_critic_of_other_observations_is_refused():
    box, choices = Box((2,)), Discrete(2)
    actor = adding(1)._replace(specs=(box, choices))
    for specs in ((Box((3,)), choices), (box, Discrete(3)), ({"a": box}, choices)):
        with pytest.raises(RefusedError, match=r"the actor was made for .*; its crit"):
            asymmetric(actor, adding(2)._replace(specs=specs))
    # Bounds of observations may differ, and who says nothing reads anything.
    asymmetric(actor, adding(2)._replace(specs=(Box((2,), low=0.0), choices)))
    asymmetric(actor, adding(2))
