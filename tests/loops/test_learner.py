"""A learner of any agent and buffer: what is learned when, and what is refused."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import loops, random
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.q_learning import QConfig, q_learning
from jaxrl_par.axis import Axis
from jaxrl_par.loops import schedules
from jaxrl_par.networks import NetworkConfig, actor_critic, q_network
from jaxrl_par.replay import Windows, fresh, uniform
from jaxrl_par.testing import check_learns, probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.delayed import delayed
from jaxrl_par.topologies.workers import WorkersConfig, workers
from jaxrl_par.types import Info, TimeStep, Trajectory

ENV = probes.clock(4)
SMALL = NetworkConfig(widths=(8,))
WINDOWS = Windows(1, constant_carry=True)
KEY = random.key(0)


def q_agent(env, rate=0.02, **options):
    network = q_network(env.observation_spec, env.action_spec, SMALL)
    config = QConfig(method="q", target_period=5, anneal_steps=500, **options)
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
    learner = loops.replayed(q_agent(ENV), uniform(16, 6, WINDOWS, min_size=9))
    start, run, metrics = trained(learner, 2)
    unchanged = start.learner._replace(elapsed=run.learner.elapsed)
    assert not differ(run.learner, unchanged)
    assert np.all(metrics["skipped"] == 0)
    assert int(run.local.data.size) == 8
    _, run, _ = trained(learner, 3)
    assert differ(run.learner.online, start.learner.online)
    assert int(run.learner.opt_state[0].count) == 1


class Sum(NamedTuple):
    params: jax.Array


def test_no_gradient_is_accepted_before_the_buffer_is_ready():
    """Two unrolls come with each step: three are kept from the second on."""
    agent = q_agent(ENV)._replace(
        grad=lambda state, batch, key, axis: (jnp.float32(1), Info({})),
        apply=lambda state, grads, metrics: Sum(state.params + grads),
    )
    learner = loops.replayed(agent, uniform(4, 1, min_size=3))
    step = TimeStep(jnp.zeros((4, 2, 1)), *(jnp.zeros((4, 2), bool),) * 2)
    numbers = jnp.zeros((3, 2))
    trajectory = Trajectory(step, numbers.astype(jnp.int32), numbers, numbers, {}, ())
    state, data = Sum(jnp.float32(0)), learner.start(trajectory)
    worker, seen = data, []
    for _ in range(3):
        state, data, metrics = learner.learn(state, data, trajectory, KEY, Axis())
        worker, given = learner.halves.contribute(state, worker, trajectory, KEY)
        seen.append((float(state.params), bool(given.accepted)))
        assert metrics["skipped"] == 0
    assert seen == [(0, False), (1, True), (2, True)]


def test_a_memory_of_the_learner_reads_every_row_once():
    """The final row comes again, as the first of the next trajectory."""
    agent = q_agent(ENV)._replace(
        params=lambda state: state.params,
        grad=lambda state, batch, key, axis: (jnp.sum(batch.carry[1]), Info({})),
        apply=lambda state, grads, metrics: Sum(grads),
    )
    rows = loops.Remember(
        lambda num_envs: jnp.zeros(num_envs),
        lambda params, memory, acted: memory + jnp.sum(acted.rows.obs[..., 0], axis=0),
    )
    learner = loops.remembering(agent, rows)
    no, numbers = jnp.zeros((3, 2), bool), jnp.zeros((2, 2))
    state, data = Sum(jnp.float32(0)), jnp.zeros(2)
    before = []
    for start in (1.0, 3.0, 5.0):
        obs = jnp.broadcast_to(start + jnp.arange(3.0), (2, 3)).T[..., None]
        steps = TimeStep(obs, no, no)
        action = numbers.astype(jnp.int32)
        trajectory = Trajectory(steps, action, numbers, numbers, {}, ())
        state, data, _ = learner.learn(state, data, trajectory, KEY, Axis())
        before.append(float(state.params))
    # Of two environments, 1 + 2, then 3 + 4 too, then 5 + 6.
    assert before == [0, 6, 20]
    np.testing.assert_array_equal(data, 21)


def test_several_updates_from_each_trajectory_are_several_batches():
    learner = loops.replayed(q_agent(ENV), uniform(16, 6, WINDOWS), updates_per_step=3)
    _, run, metrics = trained(learner, 4)
    assert int(run.learner.opt_state[0].count) == 12
    assert int(run.progress.updates) == 4
    assert metrics["value_loss"].total.shape == metrics["skipped"].shape == (4,)
    assert learner.halves is None


@pytest.mark.slow
def test_q_learning_from_a_replay_learns_what_its_actions_are_worth():
    env = probes.delayed_reward(8)
    buffer = uniform(64, 16, WINDOWS, min_size=16)
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
    learner = loops.replayed(q_agent(ENV), uniform(16, 6, WINDOWS, min_size=5))
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
