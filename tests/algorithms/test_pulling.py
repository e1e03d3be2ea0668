"""Parameters that are pulled where an episode begins."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import random
from jaxrl_par.algorithms.actor_critic import NAFConfig, naf
from jaxrl_par.algorithms.pulling import Pulled, pulling_at_starts
from jaxrl_par.axis import Axis
from jaxrl_par.networks import NetworkConfig, normalised_advantage
from jaxrl_par.replay import Windows, uniform, without_carry
from jaxrl_par.testing import check_agent, probes
from jaxrl_par.types import Agent, Box, Info, TimeStep, Trajectory, nothing


class Number(NamedTuple):
    params: jax.Array


def telling() -> Agent:
    """Acts the number that its parameters are; its memory counts rows, and its extras
    have a draw."""

    def act(params, carry, step, key):
        shape = step.first.shape
        drawn = jax.random.uniform(key, shape)
        return params + jnp.zeros((*shape, 1)), carry + 1, {"drawn": drawn}

    def grad(state, batch, key, axis):
        return jnp.sum(batch.carry), Info({})

    return Agent(
        init=lambda key, step: Number(jnp.float32(0)),
        initial_carry=lambda num_envs: jnp.zeros(num_envs),
        act=act,
        greedy=act,
        grad=grad,
        apply=lambda state, grads, metrics: state,
        specs=(Box((1,)), Box((1,))),
    )


def acted(first):
    """What is acted in each row [T, B] if version t is the newest in row t."""
    agent, num_envs = pulling_at_starts(telling()), first.shape[1]
    carry, found, drawn = agent.initial_carry(num_envs), [], []
    for t, flags in enumerate(first):
        no = jnp.zeros(num_envs, bool)
        step = TimeStep(jnp.zeros((num_envs, 1)), jnp.asarray(flags), no)
        newest = jnp.float32(t)
        action, carry, extras = agent.act(newest, carry, step, random.key(t))
        found.append(action[:, 0])
        drawn.append(extras["drawn"])
        greedy, after, _ = agent.greedy(newest, carry, step, random.key(t))
        assert np.all(greedy == t) and np.all(after.held == carry.held)
    return np.stack(found), np.stack(drawn), carry


def test_each_environment_pulls_where_its_own_episode_begins():
    first = np.zeros((7, 3), bool)
    first[0] = True
    first[2, 1] = first[5, 1] = first[4, 2] = True
    found, drawn, carry = acted(first)
    np.testing.assert_array_equal(found[:, 0], [0] * 7)
    np.testing.assert_array_equal(found[:, 1], [0, 0, 2, 2, 2, 5, 5])
    np.testing.assert_array_equal(found[:, 2], [0, 0, 0, 0, 4, 4, 4])
    # Environments draw apart, and the agent's own memory goes on.
    assert len(np.unique(drawn)) == drawn.size
    np.testing.assert_array_equal(carry.inner, [7, 7, 7])


@pytest.mark.slow
def test_learning_sees_the_agents_own_carry():
    agent = pulling_at_starts(telling())
    held = Pulled(jnp.zeros(2), jnp.float32([3.0, 4.0]))
    no = jnp.zeros((2, 2), bool)
    rows = jnp.zeros((1, 2))
    steps = TimeStep(jnp.zeros((2, 2, 1)), no, no)
    trajectory = Trajectory(steps, jnp.zeros((1, 2, 1)), rows, rows, {}, held)
    batch = agent.prepare(Number(jnp.float32(0)), trajectory, Axis())
    grads, _ = agent.grad(Number(jnp.float32(0)), batch, random.key(0), Axis())
    assert float(grads) == 7.0
    assert agent.observe is nothing
    kept = without_carry(uniform(4, 2, Windows(1)))
    data = kept.add(kept.init(trajectory), None, trajectory)
    batch, _ = kept.sample(data, None, random.key(0), Axis())
    assert jax.tree.leaves(batch.carry) == [] and data.items.carry == ()
    assert agent.prepare(None, batch, Axis()).carry == ()


@pytest.mark.slow
def test_it_keeps_the_contract_of_agents():
    env = probes.continuous_action(4)
    values = normalised_advantage(*env.specs, NetworkConfig(widths=(8,)))
    config = NAFConfig(warm_up=0, record_priority=True)
    agent = naf(values, env.action_spec, optax.sgd(0.1), config)
    check_agent(pulling_at_starts(agent), env)


def test_an_agent_of_unknown_specs_is_refused():
    with pytest.raises(ValueError, match="must know its specs"):
        pulling_at_starts(telling()._replace(specs=None))
