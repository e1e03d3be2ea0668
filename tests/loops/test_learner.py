"""A learner of any agent and buffer: what is learned when, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import loops, random
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.q_learning import QConfig, q_learning
from jaxrl_par.loops import schedules
from jaxrl_par.networks import NetworkConfig, actor_critic, q_network
from jaxrl_par.replay import fresh, uniform
from jaxrl_par.testing import check_learns, probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.delayed import delayed
from jaxrl_par.topologies.workers import WorkersConfig, workers

ENV = probes.clock(4)
SMALL = NetworkConfig(widths=(8,))
KEY = random.key(0)


def q_agent(env, rate=0.02, **options):
    network = q_network(env.observation_spec, env.action_spec, SMALL)
    config = QConfig(method="q", target_period=5, anneal_updates=50, **options)
    return q_learning(network, optax.adam(rate), config)


def trained(learner, num_updates, env=ENV):
    program = compiled(learner, env, 5)
    start = jax.jit(program.init)(KEY)
    return start, *jax.jit(scanned(program, num_updates))(start)


def differ(x, y):
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    return any(np.any(np.asarray(a) != np.asarray(b)) for a, b in pairs)


@pytest.mark.slow
def test_nothing_is_applied_before_the_buffer_is_ready():
    """Four unrolls come with each step: nine are kept from the third on."""
    learner = loops.replayed(q_agent(ENV), uniform(16, 6, 2, min_size=9))
    start, run, metrics = trained(learner, 2)
    assert not differ(run.learner, start.learner)
    assert np.all(metrics["skipped"] == 0)
    assert int(run.local.data.size) == 8
    _, run, _ = trained(learner, 3)
    assert differ(run.learner, start.learner)
    assert int(run.learner.opt_state[0].count) == 1


def test_several_updates_from_each_trajectory_are_several_batches():
    learner = loops.replayed(q_agent(ENV), uniform(16, 6, 2), updates_per_step=3)
    _, run, metrics = trained(learner, 4)
    assert int(run.learner.opt_state[0].count) == 12
    assert int(run.progress.updates) == 4
    assert metrics["value_loss"].total.shape == metrics["skipped"].shape == (4,)
    assert learner.halves is None


@pytest.mark.slow
def test_q_learning_from_a_replay_learns_what_its_actions_are_worth():
    env = probes.delayed_reward(8)
    buffer = uniform(64, 16, 2, constant_carry=True, min_size=16)
    learner = loops.replayed(q_agent(env), buffer, updates_per_step=2)
    check_learns(learner, env, 0.9, num_updates=150)


@pytest.mark.slow
def test_an_agent_alone_learns_from_each_trajectory_once():
    network = actor_critic(ENV.observation_spec, ENV.action_spec, SMALL)
    agent = a2c(network, optax.sgd(0.1))
    _, run, metrics = trained(agent, 3)
    _, same, expected = trained(loops.replayed(agent, fresh()), 3)
    assert not differ(run._replace(key=()), same._replace(key=()))
    assert not differ(metrics, expected)
    # One pass of one minibatch is in another order of its rows, and no other update.
    _, shuffled, _ = trained(loops.epochs(agent, 1), 3)
    for x, y in zip(
        jax.tree.leaves(run.learner), jax.tree.leaves(shuffled.learner), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_one_gradient_at_a_time_is_what_halves_are_for():
    agent = q_agent(ENV)
    schedule, config = schedules.in_turn(2, 4), WorkersConfig(num_workers=2)
    for learner in (
        loops.epochs(agent, 2),
        loops.replayed(agent, fresh(), updates_per_step=2),
    ):
        with pytest.raises(ValueError, match=r"delayed .* has no halves"):
            delayed(learner, ENV, 5, schedule, num_workers=2)
        with pytest.raises(ValueError, match=r"workers .* has no halves"):
            workers(learner, ENV, 5, config)


@pytest.mark.slow
def test_each_worker_has_a_replay_of_its_own():
    learner = loops.replayed(q_agent(ENV), uniform(16, 6, 2, min_size=5))
    program = delayed(learner, ENV, 5, schedules.in_turn(2, 4), num_workers=2)
    run, metrics = jax.jit(lambda key: scanned(program, 5)(program.init(key)))(KEY)
    np.testing.assert_array_equal(run.local.data.size, [12, 8])
    # The first gradient of each comes from a buffer that is not ready.
    np.testing.assert_array_equal(metrics["rejected"], [1, 1, 0, 0, 0])
    assert int(run.local.version) == 3
    first, second = run.local.data.items.reward
    assert jnp.any(first[:8] != second[:8]) or jnp.any(
        run.local.data.items.action[0, :8] != run.local.data.items.action[1, :8]
    )


@pytest.mark.parametrize("count", ["num_epochs", "num_minibatches"])
def test_counts_below_one_are_refused(count):
    with pytest.raises(ValueError, match=f"{count} must be at least 1, got 0"):
        loops.epochs(q_agent(ENV), **({"num_epochs": 1} | {count: 0}))
    with pytest.raises(ValueError, match="updates_per_step must be at least 1, got 0"):
        loops.replayed(q_agent(ENV), fresh(), updates_per_step=0)
