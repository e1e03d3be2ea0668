"""Normalised observations: the statistics are those of what was seen."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import envs, random, rollout
from jaxrl_par.algorithms import normalize as module
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.statistics import Moments
from jaxrl_par.topologies.compiled import compiled, scanned

ENV = envs.make("CartPole-v1", 4)
AGENT = normalize_observations(
    a2c(
        actor_critic(ENV.observation_spec, ENV.action_spec, NetworkConfig(widths=(8,))),
        optax.sgd(0.01),
    )
)
EMPTY = Moments(jnp.zeros(()), jnp.zeros(3), jnp.ones(3))


def test_statistics_merge_to_those_of_all_rows():
    rng = np.random.default_rng(0)
    parts = [jnp.float32(rng.normal(2.0, 3.0, (6, 4, 3))) for _ in range(3)]
    statistics = EMPTY
    for part in parts:
        statistics = module.counted(statistics, part, Axis())
    rows = np.concatenate([np.asarray(part).reshape(-1, 3) for part in parts])
    assert statistics.count == len(rows)
    np.testing.assert_allclose(statistics.mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics.variance, rows.var(0), rtol=1e-5)


def test_a_large_offset_costs_no_precision():
    rng = np.random.default_rng(1)
    obs = jnp.float32(1000.0 + rng.normal(size=(101, 8, 3)))
    statistics = module.counted(EMPTY, obs, Axis())
    np.testing.assert_allclose(statistics.variance, np.var(obs, (0, 1)), rtol=1e-3)


def test_rows_that_are_not_finite_are_left_out():
    obs = jnp.ones((5, 2, 3)).at[1, 0, 2].set(jnp.nan)
    statistics = module.counted(EMPTY, obs, Axis())
    assert statistics.count == 9
    np.testing.assert_allclose(statistics.mean, 1.0)


def test_what_was_acted_is_learned_with_the_statistics_that_acted():
    workers = rollout.start(AGENT, ENV, random.key(0))
    state = AGENT.init(random.key(1), workers.step)
    old = Moments(jnp.float32(30), jnp.full(4, 0.5), jnp.full(4, 0.25))
    state = state._replace(statistics=old)
    _, trajectory, _ = rollout.unroll(
        AGENT, ENV, AGENT.params(state), workers, random.key(2), 5
    )
    batch = AGENT.prepare(state, trajectory, Axis())
    after = AGENT.observe(state, trajectory, Axis())
    shown = module.normalized(state.statistics, trajectory.steps.obs, 10.0)
    np.testing.assert_array_equal(batch.steps.obs, shown)
    assert not np.allclose(shown, trajectory.steps.obs, atol=0.1)
    assert after.statistics.count == 30 + 20
    mean = (30 * 0.5 + trajectory.rows.obs.sum((0, 1))) / 50
    np.testing.assert_allclose(after.statistics.mean, mean, rtol=1e-5)


@pytest.mark.slow
def test_training_sees_normalised_observations():
    program = compiled(AGENT, ENV, 16)
    run, _ = jax.jit(lambda key: scanned(program, 20)(program.init(key)))(random.key(0))
    statistics = run.learner.statistics
    seen = module.normalized(statistics, run.local.streams.step.obs, 10.0)
    assert float(statistics.count) == 16 * 4 * 20
    assert np.all(np.abs(seen) < 6.0)
    assert np.all(np.asarray(statistics.variance) < 1.0)


def test_integers_are_left_alone():
    statistics = Moments(jnp.ones(()), jnp.float32(5.0), jnp.float32(4.0))
    obs = jnp.array([1, 2], jnp.int32)
    np.testing.assert_array_equal(module.normalized(statistics, obs, 10.0), obs)


def test_what_is_no_agent_or_bound_is_refused():
    normalize = inspect.unwrap(normalize_observations)  # without the tests' checks
    with pytest.raises(RefusedError, match=r"^agent must be an Agent, as algorithms"):
        normalize(compiled(AGENT, ENV, 1))
    with pytest.raises(RefusedError, match=r"^clip must be above 0, got -1\.0"):
        normalize(AGENT, clip=-1.0)
