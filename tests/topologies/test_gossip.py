"""Learners that average with a few: doubly stochastic matrices, as a program."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near

from jaxrl_par import random
from jaxrl_par.agents import TrainState, stepped
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import Elapsed
from jaxrl_par.loops import schedules
from jaxrl_par.loops.delays import DelaysConfig
from jaxrl_par.loops.schedules import Schedule
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.gossip import GossipConfig, averaged, gossip
from jaxrl_par.topologies.population import population
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.types import Agent, Info

KEY = random.key(0)
ENV = probes.counter(1)
MOMENTUM = optax.sgd(0.1, momentum=0.9)


def placed(grads=(0.0,) * 16, optimizer=optax.sgd(1.0)) -> Agent:
    """Learner i's gradient is number i, which its lane says, and noise of its key."""

    def act(params, carry, step, key):
        return jnp.zeros(step.first.shape, jnp.int32), carry, {}

    def grad(state, batch, key, axis):
        place = batch.carry[0]
        return jnp.asarray(grads, jnp.float32)[place], Info({})

    def apply(state, grads, metrics):
        return TrainState(*stepped(optimizer, state.params, state.opt_state, grads))

    def init(key, step):
        params = jnp.float32(0)
        return TrainState(params, optimizer.init(params))

    return Agent(init, lambda num_envs: jnp.arange(num_envs), act, grad, apply, act)


def at(run, values):
    """The run, with these parameters."""
    params = jnp.asarray(values, jnp.float32)
    return run._replace(learner=run.learner._replace(params=params))


def after(config, values, num_updates=1, grads=(0.0,) * 16, **options):
    """Parameters after each update, from these on."""
    program = gossip(placed(grads), ENV, 1, config, **options)
    run, step, found = at(jax.jit(program.init)(KEY), values), jax.jit(program.step), []
    for _ in range(num_updates):
        run, _ = step(run)
        found.append(np.asarray(run.learner.params))
    return found


def ring(size):
    """A third of each itself and its neighbours, as a matrix by hand."""
    weights = np.zeros((size, size))
    for i in range(size):
        for j in (i - 1, i, i + 1):
            weights[i, j % size] += 1 / 3
    return weights


# Averaging --------------------------------------------------------------------------


def test_a_ring_of_two_keeps_its_mean():
    (found,) = after(GossipConfig(2, "ring"), [3, 6])
    np.testing.assert_allclose(found, [5, 4], rtol=1e-6)


@pytest.mark.parametrize("kind", ["ring", "random", "full"])
def test_one_learner_alone_applies_its_own_gradient(kind):
    (found,) = after(GossipConfig(1, kind), [3], grads=[1.0])
    assert found.tolist() == [2.0]


def test_of_three_one_rests_and_the_mean_is_kept():
    x, seen = np.array([0.0, 3.0, 6.0]), set()
    program = gossip(placed(), ENV, 1, GossipConfig(3, "random"))
    run, step = jax.jit(program.init)(KEY), jax.jit(program.step)
    for _ in range(12):
        run, _ = step(at(run, x))
        seen.add(tuple(np.asarray(run.learner.params).tolist()))
    assert seen == {(1.5, 1.5, 6.0), (3.0, 3.0, 3.0), (0.0, 4.5, 4.5)}


def test_a_ring_averages_as_its_matrix_says():
    x = np.random.default_rng(0).normal(size=5)
    weights = ring(5)
    assert np.allclose(weights.sum(axis=0), 1) and np.allclose(weights.sum(axis=1), 1)
    for found in after(GossipConfig(5, "ring"), x, 4):
        x = weights @ x
        np.testing.assert_allclose(found, x, rtol=1e-5)


def test_disagreement_falls_at_the_rate_of_the_second_eigenvalue():
    weights = ring(6)
    values, vectors = np.linalg.eigh(weights)
    rate, x = values[-2], 10 + vectors[:, -2]
    assert np.isclose(rate, (1 + 2 * np.cos(2 * np.pi / 6)) / 3)
    for n, found in enumerate(after(GossipConfig(6, "ring"), x, 6), start=1):
        np.testing.assert_allclose(found.mean(), 10, rtol=1e-6)
        far = np.linalg.norm(np.float64(found) - found.mean())
        np.testing.assert_allclose(far, rate**n, rtol=1e-4)


def test_learners_average_at_each_multiple_of_the_interval():
    found = after(GossipConfig(2, "full", interval=3), [0, 4], 6, grads=[-1.0, 0.0])
    means = [[1, 4], [2, 4], [3.5, 3.5], [4.5, 3.5], [5.5, 3.5], [5, 5]]
    np.testing.assert_allclose(np.stack(found), means, rtol=1e-6)


@pytest.mark.sample(1)
@pytest.mark.parametrize("config", [
    GossipConfig(3, "random"), GossipConfig(3, "ring", 2), GossipConfig(3, "full"),
])  # fmt: skip
def test_on_a_mesh_learners_do_what_they_do_side_by_side(config):
    given = config, [0.0, 3.0, 6.0], 5, (1.0, -2.0, 0.5)
    here, there = after(*given), after(*given, mesh=data_mesh(3))
    np.testing.assert_allclose(np.stack(here), np.stack(there), rtol=1e-6)


# Full averaging and the mean of gradients -------------------------------------------


def both(optimizer, num_updates=1, grads=(1.0, -3.0)):
    """The first learner after full averaging, and the learner of a mesh."""
    agent, size = placed(grads, optimizer), len(grads)
    programs = (
        gossip(agent, ENV, 1, GossipConfig(size, "full")),
        sharded(compiled(agent, ENV, 1, Axis("data")), data_mesh(size)),
    )
    runs = [jax.jit(lambda k, p=p: scanned(p, num_updates)(p.init(k))[0])(KEY)
            for p in programs]  # fmt: skip
    ours, theirs = (x.learner.params for x in runs)
    assert np.ptp(ours) <= 1e-6
    return float(ours[0]), float(theirs)


@pytest.mark.sample(1)
@pytest.mark.parametrize("momentum", [0.9, None])
def test_full_averaging_of_gradient_descent_is_the_mean_of_gradients(momentum):
    ours, theirs = both(optax.sgd(0.1, momentum))
    np.testing.assert_allclose([ours, theirs], 0.1, rtol=1e-6)
    ours, theirs = both(optax.sgd(0.1, momentum), 5, (1.0, -3.0, 0.5))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam(0.1, eps=0.0),
        optax.rmsprop(0.1, decay=0.0, eps=0.0),
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
    ],
)
def test_full_averaging_of_other_steps_is_another_algorithm(optimizer):
    """A mean of steps, which cancel; not the step of the mean."""
    ours, theirs = both(optimizer)
    np.testing.assert_allclose([ours, theirs], [0.0, 0.1], atol=1e-6)


def network(env):
    config = NetworkConfig(widths=(4,))
    return actor_critic(env.observation_spec, env.action_spec, config)


@pytest.mark.slow
def test_full_averaging_is_sharded_with_statistics_too():
    env = probes.observation_reward(4)
    agent = normalize_observations(a2c(network(env), MOMENTUM))
    programs = [
        sharded(compiled(agent, env, 4, Axis("data")), data_mesh(4)),
        gossip(agent, env, 4, GossipConfig(4, "full")),
        gossip(agent, env, 4, GossipConfig(4, "full"), mesh=data_mesh(4)),
    ]
    theirs, *ours = (
        jax.jit(lambda k, p=p: scanned(p, 5)(p.init(k))[0])(KEY) for p in programs
    )
    for run in ours:
        for i in range(4):
            own = jax.tree.map(lambda x, i=i: x[i], run.learner)
            assert_near(own.inner.params, theirs.learner.inner.params)
            assert_near(own.statistics, theirs.learner.statistics)
        assert_near(averaged(run).learner.inner.params, theirs.learner.inner.params)


# At their own pace ------------------------------------------------------------------


def turns(*worker):
    worker = np.array(worker, np.int32)
    return Schedule(worker, worker * 0)


def test_an_update_that_came_meanwhile_is_kept():
    """A at 0 and B at 8 average while A learns -1."""
    config = GossipConfig(2, "random", pace="own")
    given = config, [0.0, 8.0], 1, (1.0, 0.0)
    program = gossip(placed(given[3]), ENV, 1, config, schedule=turns(0))
    run = at(jax.jit(program.init)(KEY), given[1])
    run = run._replace(local=run.local._replace(read=[jnp.array([0.0, 8.0])]))
    run, _ = jax.jit(program.step)(run)
    assert np.asarray(run.learner.params).tolist() == [3.0, 4.0]


class Steered(NamedTuple):
    params: jax.Array
    elapsed: Elapsed


def steered(rate=0.5):
    """Its gradient is its parameter, so that it shows at what it was computed."""
    base = placed()
    return base._replace(
        init=lambda key, step: Steered(jnp.float32(1), Elapsed.zero()),
        grad=lambda state, batch, key, axis: (
            state.params + batch.carry[0].astype(jnp.float32), Info({})
        ),
        apply=lambda state, grads, metrics: state._replace(
            params=state.params - rate * grads
        ),
    )  # fmt: skip


def test_learners_at_their_own_pace_follow_a_schedule_as_by_hand():
    schedule = schedules.simulated(schedules.exponential(40, 3, seed=0))
    config = GossipConfig(3, "ring", interval=2, pace="own")
    program = gossip(steered(), ENV, 1, config, schedule=schedule)
    run, step = jax.jit(program.init)(KEY), jax.jit(program.step)
    x, read, count = np.ones(3), np.ones(3), np.zeros(3, int)
    for worker in schedule.worker:
        before = np.asarray(run.learner.params, np.float64)
        run, metrics = step(run)
        now = np.asarray(run.learner.params, np.float64)
        update = -0.5 * (read[worker] + worker)
        # The sum is the old one and the update, whoever met.
        np.testing.assert_allclose(now.sum(), before.sum() + update, rtol=1e-4)
        count[worker] += 1
        others = np.flatnonzero(now != before)
        (partner,) = set(others) - {worker} or {worker}
        assert (partner == worker) or count[worker] % 2 == 0
        mean = (x[worker] + x[partner]) / 2
        x[[worker, partner]] = mean
        x[worker] += update
        read[worker] = x[worker]
        np.testing.assert_allclose(now, x, rtol=1e-4, atol=1e-5)
    assert int(run.progress.updates.units[0]) == 40
    # Rates count what all had acted when it was done; what came then, when it is again.
    steps = np.asarray(run.progress.env_steps.units).sum()
    elapsed = np.asarray(run.learner.elapsed.env_steps.units)
    assert elapsed[schedule.worker[-1]] == steps
    assert (elapsed + run.local.since.env_steps == steps).all()
    assert (metrics["lag"], int(run.local.since.updates[worker])) == (
        len(schedule.worker) - 2 - np.flatnonzero(schedule.worker[:-1] == worker)[-1],
        0,
    )


def test_a_schedule_is_repeated_bit_for_bit(tmp_path):
    path = tmp_path / "schedule.jsonl"
    path.write_text("".join(f"[[{w}, 0, 0, [{n}]]]\n" for n, w in enumerate((0, 1, 1))))
    schedule = DelaysConfig("recorded", record=str(path)).schedule(2, 0, 0)
    config = GossipConfig(2, pace="own")
    program = gossip(steered(), ENV, 2, config, schedule=schedule)
    call = jax.jit(lambda key: scanned(program, 7)(program.init(key))[0])
    first, second = call(KEY), call(KEY)
    assert jax.tree.all(jax.tree.map(np.array_equal, first.learner, second.learner))
    # 0, 1, 1, and again from its beginning.
    assert np.asarray(first.local.unroll.units).tolist() == [3, 4]


# What is counted and what is refused ------------------------------------------------


def test_steps_are_each_learners_own_and_its_rates_count_those_of_all():
    program = gossip(steered(), ENV, 5, GossipConfig(3))
    run, metrics = jax.jit(lambda k: scanned(program, 2)(program.init(k)))(KEY)
    steps = np.asarray(run.progress.env_steps.units)
    assert (
        np.asarray(run.learner.elapsed.env_steps.units).tolist() == (3 * steps).tolist()
    )
    assert metrics["distance"].total.shape == (2, 3)
    assert np.asarray(run.progress.updates.units).tolist() == [2, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("pace", ["together", "own"])
def test_members_of_a_population_may_gossip(pace):
    config = GossipConfig(2, pace=pace)
    own = {"schedule": turns(0, 1, 1)} if pace == "own" else {}

    def make(values):
        return gossip(steered(values["rate"]), ENV, 2, config, **own)

    rates = np.array([0.1, 0.3], np.float32)
    members = population(make, {"rate": rates, "seed": np.array([0, 0])})
    program = members.program
    run = jax.jit(lambda k: scanned(program, 3)(program.init(k))[0])(KEY)
    for i, rate in enumerate(rates):
        alone = make({"rate": rate})
        expected = jax.jit(lambda k, p=alone: scanned(p, 3)(p.init(k))[0])(KEY)
        member = members.member(run, i).run
        assert_near(member.learner.params, expected.learner.params)


REFUSED = [
    ({"num_learners": 0}, {}, "num_learners must be at least 1"),
    ({"interval": 0}, {}, "interval must be at least 1"),
    ({"pace": "own", "kind": "full"}, {}, "kind must be ring or random for pace = own"),
    ({"pace": "own"}, {}, "pace = own needs a schedule"),
    ({}, {"schedule": turns(0)}, "a schedule is for pace = own"),
    ({"pace": "own"}, {"schedule": turns(0, 4)}, "workers must be in 0 .. 3"),
]


@pytest.mark.parametrize(("config", "options", "message"), REFUSED)
def test_what_does_not_fit_is_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        gossip(placed(), ENV, 1, GossipConfig(**config), **options)


def test_a_mesh_has_a_device_for_each_learner():
    with pytest.raises(ValueError, match="num_learners must be the 2 devices' number"):
        gossip(placed(), ENV, 1, GossipConfig(3), mesh=data_mesh(2))
