"""How many updates one call makes changes nothing."""

import inspect

import jax
import numpy as np
import optax
import pytest

from jaxrl_par import random
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.loops import Program, epochs, new_run
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, scanned, train
from jaxrl_par.types import Mean

ENV = probes.observation_reward(4)
NETWORK = actor_critic(
    ENV.observation_spec, ENV.action_spec, NetworkConfig(widths=(8,))
)


@pytest.mark.slow
def test_six_calls_of_one_equal_one_call_of_six():
    agent = ppo(NETWORK, optax.adam(0.01))
    program = compiled(epochs(agent, 2, 2), ENV, 5)
    start = jax.jit(program.init)(random.key(0))
    together, _ = jax.jit(scanned(program, 6))(start)
    apart, one = start, jax.jit(scanned(program, 1))
    for _ in range(6):
        apart, _ = one(apart)
    key_data = jax.random.key_data
    together, apart = (
        jax.tree.leaves(run._replace(key=key_data(run.key)))
        for run in (together, apart)
    )
    for x, y in zip(together, apart, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_mean_over_nothing_is_no_number():
    def step(run):
        count = run.progress.updates.units
        progress = run.progress._replace(updates=run.progress.updates.add(1))
        return run._replace(progress=progress), {"mean": Mean(3.0 * count, 1.0 * count)}

    program = Program(lambda key: new_run((), (), key), step)
    run, metrics = train(program, 3)
    np.testing.assert_array_equal(metrics["mean"], [np.nan, 3.0, 3.0])
    assert int(run.progress.updates) == 3


def test_a_call_of_no_updates_is_rejected():
    agent = ppo(NETWORK, optax.adam(0.01))
    with pytest.raises(ValueError, match="num_updates must be at least 1, got 0"):
        scanned(compiled(agent, ENV, 5), 0)


def test_what_is_no_program_is_refused():
    agent = ppo(NETWORK, optax.adam(0.01))
    with pytest.raises(ValueError, match=r"train takes compiled\(agent, env, \.\.\.\)"):
        inspect.unwrap(train)(agent, 1)  # as without the tests' own check of types
