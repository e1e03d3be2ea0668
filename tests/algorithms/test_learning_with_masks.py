"""Where few of many actions do anything, who knows them learns in less than half of
the steps."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

from jaxrl_par import loops, random
from jaxrl_par.algorithms.dqn import DQNConfig, dqn
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.networks import NetworkConfig, actor_critic, q_network
from jaxrl_par.replay import Windows, uniform
from jaxrl_par.testing import check_learns, choices
from jaxrl_par.topologies.compiled import compiled, scanned

SMALL = NetworkConfig(widths=(32,))
SEEDS = 3


def by_ppo(env):
    agent = ppo(actor_critic(*env.specs, SMALL), optax.adam(5e-3))
    return compiled(loops.epochs(agent, 4, 4), env, 16)


def by_dqn(env):
    config = DQNConfig(anneal_steps=2_000, epsilon_final=0.02, target_period=50)
    agent = dqn(q_network(*env.specs, SMALL), optax.adam(3e-3), config)
    buffer = uniform(1_024, 32, Windows(1, constant_carry=True), min_size=64)
    return compiled(loops.replayed(agent, buffer, updates_per_step=4), env, 4)


def final_returns(program, num_updates):
    """Of each seed, over the last fifth of the updates."""
    keys = jax.random.split(random.key(0), SEEDS)

    def run(key):
        return scanned(program, num_updates)(program.init(key))[1]["episode_return"]

    told = jax.jit(jax.vmap(run))(keys)
    total, count = (np.asarray(x)[:, -num_updates // 5 :].sum(1) for x in told)
    return total / count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "rooms", "updates"), [(by_ppo, 32, 25), (by_dqn, 16, 60)]
)
def test_masks_save_more_than_half_of_the_steps(method, rooms, updates):
    """4 of 64 or 128 actions are allowed; the optimal return is 8."""
    make = partial(choices.few_of_many, 16, rooms=rooms)
    masked = final_returns(method(make()), updates)
    unmasked = final_returns(method(make(masked=False)), 2 * updates)
    assert (masked > 6.0).all() and (unmasked < 5.0).all(), (masked, unmasked)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "at_least"), [(choices.pairs, 1.8), (choices.parts, 0.6)]
)
def test_actions_of_several_parts_are_learned(make, at_least):
    """Optimal: 2 in two steps that must agree with a bit, and 1."""
    env = make(32)
    learner = loops.epochs(ppo(actor_critic(*env.specs, SMALL), optax.adam(5e-3)), 4, 4)
    check_learns(learner, env, at_least, num_updates=200)
