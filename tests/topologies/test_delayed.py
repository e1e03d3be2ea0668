"""Asynchrony as data: what late gradients do, against loops written by hand."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import loops, random, rollout
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.algorithms.impala import impala
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.algorithms.q_learning import QConfig, q_learning
from jaxrl_par.loops import schedules
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.loops.schedules import Schedule
from jaxrl_par.networks import NetworkConfig, actor_critic, q_network
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.testing import probes
from jaxrl_par.topologies.delayed import delayed
from jaxrl_par.topologies.population import grid, population
from jaxrl_par.topologies.scan import scanned
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.types import Agent, Info

KEY = random.key(0)
ENV = probes.observation_reward(4)
LENGTH = 4
# Not Adam: it ignores the gradient's scale. Large, so that a delay makes a difference.
SGD = optax.sgd(0.5)


def network(memory="none", make=actor_critic):
    config = NetworkConfig(widths=(4,), memory=memory, memory_width=4)
    return make(ENV.observation_spec, ENV.action_spec, config)


def optimizer(name):
    return make_optimizer(OptimizerConfig(name=name, learning_rate=0.05), 20)


AGENTS = {
    "a2c": lambda: a2c(network(), SGD),
    "a2c, summed": lambda: a2c(network(), SGD, A2CConfig(reduction="sum")),
    "a2c, rmsprop": lambda: a2c(network(), optimizer("rmsprop")),
    "a2c, adam, lstm": lambda: a2c(network("lstm"), optimizer("adam")),
    "impala": lambda: impala(network(), SGD),
    "impala, lstm": lambda: impala(network("lstm"), SGD),
    "ppo": lambda: ppo(network(), SGD),
    "normalized a2c": lambda: normalize_observations(a2c(network(), SGD)),
    "q-learning": lambda: q_learning(
        network(make=q_network), SGD, QConfig(target_period=3, anneal_updates=6)
    ),
}
agent_of = cache(lambda name: AGENTS[name]())


def turns(worker, delay):
    return Schedule(np.array(worker, np.int32), np.array(delay, np.int32))


def program_of(name, schedule, num_workers, **options):
    return delayed(
        agent_of(name), ENV, LENGTH, schedule, num_workers=num_workers, **options
    )


def trained(program, num_turns, key=KEY):
    return jax.jit(lambda key: scanned(program, num_turns)(program.init(key)))(key)


def bits(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


def assert_equal(actual, expected):
    """Bit for bit, keys included."""
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(bits(x), bits(y))


def assert_close(actual, expected, atol=1e-6):
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(bits(x), bits(y), rtol=1e-5, atol=atol)


def differ(first, second):
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return any(np.abs(bits(x) - bits(y)).max() > 1e-3 for x, y in pairs)


# Without delay -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a2c", "a2c, rmsprop", "a2c, adam, lstm", "impala, lstm", "ppo", "normalized a2c",
     "q-learning"],
)  # fmt: skip
def test_one_worker_without_delay_is_the_synchronous_program(name):
    on_policy = loops.on_policy(agent_of(name), ENV, LENGTH, axis_name="data")
    synchronous, expected = trained(sharded(on_policy, data_mesh(1)), 4)
    run, metrics = trained(program_of(name, schedules.in_turn(1, 3), 1), 4)
    assert_equal(run.learner, synchronous.learner)
    assert_equal(run.local.workers, synchronous.local.workers)
    assert_equal(run.key, synchronous.key)
    assert_equal(run.progress, synchronous.progress)
    assert_equal({name: metrics[name] for name in expected}, expected)
    assert metrics["lag"].max() == metrics["rejected"].max() == 0


def test_workers_together_follow_the_gradient_of_their_joint_batch():
    name, num_workers = "a2c, summed", 3
    agent = agent_of(name)
    program = program_of(name, schedules.together(num_workers, 3), num_workers)
    run = jax.jit(program.init)(KEY)

    @jax.jit
    def joint(state, workers):
        parts = []
        for w in range(num_workers):
            own = jax.tree.map(lambda x, w=w: x[w], workers)
            act_key, _ = drawn(run.key, 0, w)
            _, part, _ = rollout.unroll(
                agent, ENV, state.params, own, act_key, LENGTH
            )
            parts.append(part)
        batch = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *parts)
        grads, _ = agent.grad(state, batch, KEY)
        return agent.apply(state, grads)

    after, _ = jax.jit(scanned(program, num_workers))(run)
    assert_close(after.learner, joint(run.learner, run.local.workers))
    assert differ(after.learner, run.learner)


# With delay: by hand -------------------------------------------------------------


def drawn(root, unroll, worker):
    """Keys to act and to learn with."""
    key = jax.random.fold_in(jax.random.fold_in(root, 0), unroll)
    return jax.random.split(jax.random.fold_in(key, worker))


@cache
def halves(name):
    """The steps of a worker and of who keeps the parameters, compiled."""
    agent = agent_of(name)

    @jax.jit
    def act(state, workers, key):
        after, batch, _ = rollout.unroll(
            agent, ENV, state.params, workers, key, LENGTH
        )
        return after, batch

    @jax.jit
    def gradient(state, trajectory, key):
        state, batch = agent.prepare(state, trajectory, lambda x: x)
        return agent.grad(state, batch, key)[0]

    @jax.jit
    def apply(state, trajectory, grads):
        state, _ = agent.prepare(state, trajectory, lambda x: x)
        return agent.apply(state, grads)

    return act, gradient, apply


@cache
def begun(name, num_workers):
    """(the first state, workers, root) of a run."""
    agent = agent_of(name)

    @jax.jit
    def start(key):
        learn_key, env_key, root = jax.random.split(key, 3)
        workers = [
            rollout.start(agent, ENV, jax.random.fold_in(env_key, w), w, num_workers)
            for w in range(num_workers)
        ]
        return agent.init(learn_key, workers[0].step), workers, root

    return start(KEY)


def by_hand(name, schedule, num_workers, num_turns, stale="gradients"):
    """All states of a run, the first to the last, and its workers."""
    act, gradient, apply = halves(name)
    state, workers, root = begun(name, num_workers)
    workers, states, unrolls = list(workers), [state], [0] * num_workers
    for turn in range(num_turns):
        row = turn % len(schedule.worker)
        w, delay = int(schedule.worker[row]), int(schedule.delay[row])
        old, newest = states[turn - delay], states[turn]
        act_key, learn_key = drawn(root, unrolls[w], w)
        unrolls[w] += 1
        workers[w], trajectory = act(old, workers[w], act_key)
        at = old if stale == "gradients" else newest
        grads = gradient(at, trajectory, learn_key)
        states.append(apply(newest, trajectory, grads))
    return states, workers


EVENTS = schedules.simulated(schedules.exponential(7, 3, seed=5))
SCHEDULES = {
    "in turn": (schedules.in_turn(3, 8), 3),
    "late": (schedules.in_turn(1, 8, delay=3), 1),
    "in turn, late": (schedules.in_turn(2, 8, delay=2), 2),
    "again": (schedules.in_turn(2, 3, delay=2), 2),
    "events": (EVENTS, 3),
    "overlapping": (turns([0, 0, 1, 0, 1, 1], [0, 1, 2, 3, 0, 1]), 2),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a2c_follows_a_schedule_as_by_hand(name):
    schedule, num_workers = SCHEDULES[name]
    run, metrics = trained(program_of("a2c", schedule, num_workers), 8)
    states, workers = by_hand("a2c", schedule, num_workers, 8)
    assert_close(run.learner, states[-1])
    joint = jax.tree.map(lambda *x: jnp.stack(x), *workers)
    assert_close(run.local.workers, joint)
    delays = np.resize(schedule.delay, 8)
    np.testing.assert_array_equal(metrics["lag"], delays)
    counts = np.bincount(np.resize(schedule.worker, 8), minlength=num_workers)
    np.testing.assert_array_equal(run.local.unroll.units, counts)


@pytest.mark.parametrize("name", ["ppo", "impala, lstm", "normalized a2c", "q-learning"])
def test_agents_follow_a_schedule_as_by_hand(name):
    run, _ = trained(program_of(name, EVENTS, 3), 7)
    states, _ = by_hand(name, EVENTS, 3, 7)
    assert_close(run.learner, states[-1])


@pytest.mark.parametrize("name", ["a2c", "impala", "normalized a2c"])
def test_only_data_are_stale_as_by_hand(name):
    schedule = schedules.in_turn(2, 8, delay=3)
    run, metrics = trained(program_of(name, schedule, 2, stale="data"), 8)
    states, _ = by_hand(name, schedule, 2, 8, stale="data")
    assert_close(run.learner, states[-1])
    np.testing.assert_array_equal(metrics["lag"], schedule.delay)
    gradients, _ = by_hand(name, schedule, 2, 8)
    assert differ(states[-1], gradients[-1])


def test_a_delay_makes_a_difference():
    ends = [
        by_hand("a2c", schedules.in_turn(2, 8, delay), 2, 8)[0][-1] for delay in (0, 1)
    ]
    assert differ(*ends)


# The same numbers ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["a2c, adam, lstm", "q-learning"])
@pytest.mark.parametrize("speeds", [(1.0, 1.0, 1.0), (1.0, 3.3)])
def test_copies_are_a_ring_in_less_or_more_memory(name, speeds):
    # Seven turns of a schedule of five: it begins again.
    schedule = schedules.simulated(schedules.steady(5, np.array(speeds)))
    runs = [
        trained(program_of(name, schedule, len(speeds), storage=storage), 8)
        for storage in ("ring", "copies")
    ]
    (ring, metrics), (copies, expected) = runs
    assert_equal(metrics, expected)
    assert_equal(ring.learner, copies.learner)
    assert_equal(ring.local.workers, copies.local.workers)
    assert len(ring.local.past.version) == schedule.delay.max() + 1
    assert len(copies.local.past.version) == len(speeds)


def test_memory_is_of_what_workers_read_and_of_the_delay():
    program = program_of("a2c, adam, lstm", schedules.in_turn(2, 9, delay=4), 2)
    run = jax.eval_shape(program.init, KEY)
    kept = [x.shape for x in run.local.past.leaves]
    params = [(5, *x.shape) for x in jax.tree.leaves(run.learner.params)]
    assert kept == params
    longer = program_of("a2c", schedules.in_turn(2, 9), 2, max_delay=6)
    assert len(jax.eval_shape(longer.init, KEY).local.past.version) == 7


def test_the_same_schedule_gives_the_same_bits_and_another_key_does_not():
    program = program_of("a2c", EVENTS, 3)
    first, again = trained(program, 7), trained(program_of("a2c", EVENTS, 3), 7)
    assert_equal(first, again)
    other, _ = trained(program, 7, random.key(1))
    assert differ(first[0].learner, other.learner)


def test_a_run_in_parts_is_the_run_as_a_whole():
    """Saved and continued by a program made anew; the schedule begins again within."""
    expected, metrics = trained(program_of("a2c, adam, lstm", EVENTS, 3), 10)
    program = program_of("a2c, adam, lstm", EVENTS, 3)
    run, rows = jax.jit(program.init)(KEY), []
    one = jax.jit(program.step)
    for _ in range(4):
        run, row = one(run)
        rows.append(row)
    first = jax.tree.map(lambda *x: jnp.stack(x), *rows)
    assert_equal(first, jax.tree.map(lambda x: x[:4], metrics))

    leaves, tree = jax.tree.flatten(run._replace(key=jax.random.key_data(run.key)))
    saved = tree.unflatten([jnp.array(np.asarray(x)) for x in leaves])
    saved = saved._replace(key=jax.random.wrap_key_data(saved.key))
    anew = program_of("a2c, adam, lstm", EVENTS, 3)
    run, last = jax.jit(scanned(anew, 6))(saved)
    assert_equal(last, jax.tree.map(lambda x: x[4:], metrics))
    assert_equal(run, expected)


# Traced schedules ----------------------------------------------------------------


def test_members_of_a_population_have_delays_of_their_own():
    def member(values):
        schedule = schedules.in_turn(2, 8, values["delay"])
        return program_of("a2c", schedule, 2, max_delay=3)

    many = population(member, grid(delay=[0, 1, 3], seed=[0, 1]))
    runs, metrics = trained(many.program, 8)
    np.testing.assert_array_equal(metrics["skipped"], 0)
    for index, (delay, seed) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (3, 0)]):
        alone = program_of("a2c", schedules.in_turn(2, 8, delay), 2, max_delay=3)
        run, row = trained(alone, 8, random.key(seed))
        assert_close(jax.tree.map(lambda x, i=index: x[i], runs.learner), run.learner)
        np.testing.assert_array_equal(metrics["lag"][:, index], row["lag"])
    assert many.member(runs, 4).program.step  # concrete again


@pytest.mark.parametrize("bad", [(0, 2), (0, -1), (5, 0), (-1, 0)])
def test_a_traced_turn_that_does_not_fit_is_skipped(bad):
    @jax.jit
    def train(worker, delay):
        schedule = Schedule(
            jnp.array([0, 1, 0], jnp.int32).at[2].set(worker),
            jnp.array([0, 1, 1], jnp.int32).at[2].set(delay),
        )
        program = program_of("a2c", schedule, 2, max_delay=1)
        run, metrics = scanned(program, 2)(program.init(KEY))
        return run, metrics, *program.step(run)

    def fails(turn):
        run, metrics, after, row = train(*map(jnp.int32, turn))
        np.testing.assert_array_equal(metrics["skipped"], 0)
        if row["skipped"]:
            assert_equal(after.learner, run.learner)
        assert row["skipped"] == after.progress.skipped
        return bool(row["skipped"])

    assert fails(bad) and not fails((0, 1))


# Staleness -----------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0, 2])
def test_of_workers_that_read_together_those_past_the_bound_are_rejected(bound):
    """Gorila: W - 1 - m of W in every round."""
    config = StalenessConfig("reject", max_staleness=bound)
    run, metrics = trained(
        program_of("a2c", schedules.together(5, 5), 5, staleness=config), 15
    )
    rejected = np.reshape(metrics["rejected"], (3, 5))
    np.testing.assert_array_equal(rejected, [[0] * (bound + 1) + [1] * (4 - bound)] * 3)
    # Those rejected are no updates, so that nobody's gradient gets any staler by them.
    lags = np.minimum(np.arange(5), bound + 1)
    np.testing.assert_array_equal(np.reshape(metrics["lag"], (3, 5)), [lags] * 3)
    assert int(run.local.version) == 3 * (bound + 1)
    assert int(run.progress.updates) == 15 and run.progress.skipped == 0


def test_rejected_gradients_leave_the_state_as_it_is():
    config = StalenessConfig("reject", max_staleness=0)
    together = program_of("a2c", schedules.together(3, 3), 3, staleness=config)
    run, _ = trained(together, 3)
    first, _ = trained(together, 1)
    assert_equal(run.learner, first.learner)


def test_scaled_gradients_are_divided_by_their_lag():
    config = StalenessConfig("scale")
    program = program_of("a2c", schedules.together(3, 3), 3, staleness=config)
    run, _ = trained(program, 3)
    act, gradient, _ = halves("a2c")
    state, workers, root = begun("a2c", 3)
    params = state.params
    for w, divisor in enumerate([1, 1, 2]):
        act_key, learn_key = drawn(root, 0, w)
        _, trajectory = act(state, workers[w], act_key)
        grads = gradient(state, trajectory, learn_key)
        params = jax.tree.map(lambda x, g, d=divisor: x - 0.5 * g / d, params, grads)
    assert_close(run.learner.params, params)


class One(NamedTuple):
    params: jax.Array


def descent(rate):
    """Steps on x**2 / 2, whatever the environment shows."""
    return Agent(
        init=lambda key, step: One(jnp.float32(1.0)),
        initial_carry=lambda num_envs: (),
        act=lambda params, carry, step, key: (jnp.zeros(1, jnp.int32), carry, {}),
        greedy=lambda params, carry, step, key: (jnp.zeros(1, jnp.int32), carry, {}),
        grad=lambda state, batch, key: (state.params, Info({"x": state.params})),
        apply=lambda state, grads: One(state.params - rate * grads),
    )


def test_a_quadratic_is_stable_just_below_the_bound_of_its_delay():
    """x' = x - rate * x of `delay` steps before, for rate < 2 sin(pi / (4 delay + 2))."""
    num_turns, delays = 2000, np.repeat([0, 1, 10], 2)
    bounds = 2.0 * np.sin(np.pi / (2.0 * (2.0 * delays + 1.0)))
    np.testing.assert_allclose(bounds[::2], [2.0, 1.0, 0.1495], atol=1e-4)
    rates = np.float32(bounds * np.tile([0.98, 1.02], 3))
    env = probes.constant_reward(1)

    def member(values):
        schedule = schedules.in_turn(1, num_turns, values["delay"])
        agent = descent(values["rate"])
        return delayed(agent, env, 1, schedule, num_workers=1, max_delay=10)

    many = population(member, {"delay": delays.astype(np.int32), "rate": rates})
    _, metrics = trained(many.program, num_turns)
    for column, (delay, rate) in enumerate(zip(delays, rates, strict=True)):
        x = [1.0]
        for turn in range(300):
            x.append(x[-1] - rate * x[max(turn - delay, 0)])
        read = [x[max(turn - delay, 0)] for turn in range(300)]
        np.testing.assert_allclose(
            metrics["x"][:300, column], read, rtol=1e-3, atol=1e-3
        )
        size = np.abs(metrics["x"][:, column])
        # Before it leaves the range of floats.
        growth = size[900:1000].max() / size[400:500].max()
        assert growth > 1.5 if column % 2 else growth < 0.7


# Counters ------------------------------------------------------------------------


def test_turns_and_rows_of_all_workers_are_counted():
    env = probes.counter(2)
    config = NetworkConfig(widths=(4,))
    agent = a2c(actor_critic(env.observation_spec, env.action_spec, config), SGD)
    schedule = turns([0, 1, 1], [0, 1, 0])
    run, metrics = trained(delayed(agent, env, 6, schedule, num_workers=2), 3)
    assert int(run.progress.updates) == 3
    # Every fourth row ended an episode: 1 of a worker's first 6, then 2.
    assert int(run.progress.env_steps) == 2 * (5 + 5 + 4)
    np.testing.assert_array_equal(metrics["episode_length"].count, [2, 2, 4])
    assert jax.tree.map(lambda x: x.tolist(), run.local.unroll) == ([0, 0], [1, 2])


def test_a_reward_that_is_not_finite_skips_its_turn_and_no_other():
    env = probes.counter(2)

    def step(env_state, action, key):
        env_state, step, reward, discount = env.step(env_state, action, key)
        reward = jnp.where(step.obs[:, 1] == 6, jnp.nan, reward)
        return env_state, step, reward, discount

    config = NetworkConfig(widths=(4,))
    agent = a2c(actor_critic(env.observation_spec, env.action_spec, config), SGD)
    schedule = turns([0, 0, 1, 0], [0, 0, 1, 2])
    program = delayed(agent, env._replace(step=step), 4, schedule, num_workers=2)
    run, metrics = trained(program, 4)
    np.testing.assert_array_equal(metrics["skipped"], [0, 1, 0, 0])
    # What was skipped is no update, and nothing is staler by it.
    np.testing.assert_array_equal(metrics["lag"], [0, 0, 0, 1])
    assert int(run.local.version) == 3 and int(run.progress.updates) == 4
    assert run.progress.skipped == 1 and run.progress.skipped_in_a_row == 0


# Bad input -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "message, options",
    [
        ("unroll_length must be at least 1, got 0", {"unroll_length": 0}),
        ("num_workers must be at least 1, got 0", {"num_workers": 0}),
        (r"workers must be in 0 .. 1, got 0 .. 2", {"num_workers": 2}),
        (r"delays must be in 0 .. 1, got 0 .. 2", {"max_delay": 1}),
        ("turn 1 has a delay of 2, from before", {"schedule": turns([0, 0], [0, 2])}),
        ("two arrays .N. with N at least 1", {"schedule": turns([], [])}),
        ("in which each worker reads", {"storage": "copies"}),
        ("max_staleness must be at least 0", {"staleness": StalenessConfig("scale", -1)}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(message, options):
    given = {
        "unroll_length": 4, "schedule": schedules.together(3, 6), "num_workers": 3,
    } | options  # fmt: skip
    with pytest.raises(ValueError, match=message):
        delayed(agent_of("a2c"), ENV, **given)


def test_traced_schedules_need_a_bound_and_a_ring():
    def build(delay, **options):
        schedule = schedules.in_turn(2, 4, delay)
        program_of("a2c", schedule, 2, **options)
        return delay

    with pytest.raises(ValueError, match="a traced schedule needs max_delay"):
        jax.jit(build)(jnp.int32(1))
    with pytest.raises(ValueError, match="this one needs a ring"):
        jax.jit(lambda delay: build(delay, max_delay=1, storage="copies"))(jnp.int32(1))
    jax.jit(lambda delay: build(delay, max_delay=1))(jnp.int32(1))
