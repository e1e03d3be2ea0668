"""What agents of a network and a loss have in common."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par import random
from jaxrl_par.agents import acting
from jaxrl_par.distributions import Categorical
from jaxrl_par.networks import Network
from jaxrl_par.types import TimeStep

NUM_ENVS = 64


def table():
    """Its parameters are logits for all; its memory counts steps."""

    def apply(params, carry, step):
        logits = jnp.broadcast_to(params, (NUM_ENVS, 3))
        return (Categorical(logits), jnp.zeros(NUM_ENVS)), carry + 1

    return Network(lambda key, step: (), jnp.zeros, apply, apply)


def test_acting_leaves_the_probability_of_what_was_sampled():
    logits = jnp.array([0.0, 1.0, -1.0])
    no = jnp.zeros(NUM_ENVS, bool)
    step = TimeStep(jnp.zeros((NUM_ENVS, 1)), no, no)
    act, greedy = acting(table(), record_log_prob=True, record_policy=True)
    action, carry, extras = act(logits, jnp.zeros(NUM_ENVS), step, random.key(0))
    assert set(np.asarray(action)) == {0, 1, 2}
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    np.testing.assert_allclose(extras["log_prob"], log_probs[action], rtol=1e-6)
    np.testing.assert_array_equal(extras["policy"].logits[0], logits)
    np.testing.assert_array_equal(carry, 1)
    action, carry, extras = greedy(logits, carry, step, random.key(0))
    np.testing.assert_array_equal(action, 1)
    np.testing.assert_array_equal(carry, 2)
    assert extras == {}
    assert acting(table())[0](logits, carry, step, random.key(0))[2] == {}
