"""Asynchrony as data: what late gradients do, against loops written by hand."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near

from jaxrl_par import random, rollout
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.algorithms.impala import impala
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.algorithms.q_learning import QConfig, q_learning
from jaxrl_par.axis import Axis
from jaxrl_par.elapsed import passed
from jaxrl_par.loops import schedules
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.loops.schedules import Schedule
from jaxrl_par.networks import NetworkConfig, actor_critic, q_network
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.delayed import delayed
from jaxrl_par.topologies.population import population
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
    return make_optimizer(OptimizerConfig(name=name, learning_rate=0.05), 200)


AGENTS = {
    "a2c": lambda: a2c(network(), SGD),
    "a2c, summed": lambda: a2c(network(), SGD, A2CConfig(reduction="sum")),
    "a2c, rmsprop": lambda: a2c(network(), optimizer("rmsprop")),
    "impala, lstm": lambda: impala(network("lstm"), optimizer("adam")),
    "ppo": lambda: ppo(network(), SGD),
    "normalized a2c": lambda: normalize_observations(a2c(network(), SGD)),
    "q-learning": lambda: q_learning(
        network(make=q_network), SGD, QConfig(target_period=3, anneal_steps=60)
    ),
}
agent_of = cache(lambda name: AGENTS[name]())


def turns(worker, delay):
    return Schedule(np.array(worker, np.int32), np.array(delay, np.int32))


def program_of(name, schedule, num_workers, **options):
    return delayed(
        agent_of(name), ENV, LENGTH, schedule, num_workers=num_workers, **options
    )


def stepped(program, num_turns, key=KEY):
    """Runs before the first turn and after each, and metrics [num_turns]."""
    run = jax.jit(program.init)(key)
    step, runs, rows = jax.jit(program.step), [run], []
    for _ in range(num_turns):
        run, row = step(run)
        runs.append(run)
        rows.append(row)
    return runs, jax.tree.map(lambda *x: np.stack(x), *rows)


def trained(program, num_turns, key=KEY):
    """The run after so many turns, and metrics [num_turns]."""
    runs, metrics = stepped(program, num_turns, key)
    return runs[-1], metrics


def bits(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


def assert_equal(actual, expected):
    """Bit for bit, keys included."""
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(bits(x), bits(y))


def differ(first, second):
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return any(np.abs(bits(x) - bits(y)).max() > 1e-3 for x, y in pairs)


# Without delay -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["a2c, rmsprop", "impala, lstm", "ppo", "normalized a2c"],
)
def test_one_worker_without_delay_is_the_synchronous_program(name):
    on_policy = compiled(agent_of(name), ENV, LENGTH)
    synchronous, expected = trained(on_policy, 4)
    run, metrics = trained(program_of(name, schedules.in_turn(1, 3), 1), 4)
    assert_equal(run.learner, synchronous.learner)
    own = jax.tree.map(lambda x: x[0], run.local.streams)
    assert_equal(own, synchronous.local.streams)
    assert_equal(run.key, synchronous.key)
    assert_equal(run.progress, synchronous.progress)
    assert_equal({name: metrics[name] for name in expected}, expected)
    assert metrics["lag"].max() == metrics["rejected"].max() == 0


@pytest.mark.slow
def test_workers_together_follow_the_gradient_of_their_joint_batch():
    name, num_workers = "a2c, summed", 3
    agent = agent_of(name)
    program = program_of(name, schedules.together(num_workers, 3), num_workers)
    runs, _ = stepped(program, num_workers)
    run, after = runs[0], runs[-1]

    @jax.jit
    def joint(state, workers):
        parts = []
        for w in range(num_workers):
            own = jax.tree.map(lambda x, w=w: x[w], workers)
            act_key, _ = drawn(run.key, 0, w)
            _, part, _ = rollout.unroll(
                agent, ENV, agent.params(state), own, act_key, LENGTH
            )
            parts.append(part)
        batch = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *parts)
        grads, _ = agent.grad(state, batch, KEY, Axis())
        return agent.apply(state, grads, {})

    assert_near(after.learner, joint(run.learner, run.local.streams))
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
            agent, ENV, agent.params(state), workers, key, LENGTH
        )
        return after, batch

    @jax.jit
    def gradient(state, trajectory, key):
        batch = agent.prepare(state, trajectory, Axis())
        return agent.grad(state, batch, key, Axis())[0]

    @jax.jit
    def apply(state, trajectory, grads):
        state = agent.observe(state, trajectory, Axis())
        return agent.apply(state, grads, {})

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
        after = apply(newest, trajectory, grads)
        states.append(passed(after, trajectory.env_steps))
    return states, workers


EVENTS = schedules.simulated(schedules.exponential(7, 3, seed=5))
SCHEDULES = {
    "in turn": schedules.in_turn(3, 8),
    "one, late": turns([0] * 8, [0, 1, 2, 3, 3, 3, 3, 3]),
    "in turn, late": schedules.in_turn(2, 8, delay=2),
    "together": schedules.together(3, 8),
    "overlapping": turns([0, 0, 1, 0, 2, 1, 2, 2], [0, 1, 2, 3, 0, 1, 3, 1]),
}


@cache
def traced_program():
    """(init, step) for any schedule of eight turns, three workers and delays to 3."""

    def program(schedule):
        return program_of("a2c", schedule, 3, max_delay=3)

    start = program(schedules.in_turn(3, 8)).init
    return jax.jit(start), jax.jit(lambda run, given: program(given).step(run))


def followed(schedule, key=KEY):
    """Runs before the first of eight turns and after each, and metrics [8]."""
    init, step = traced_program()
    runs, rows = [init(key)], []
    for _ in range(8):
        run, row = step(runs[-1], schedule)
        runs.append(run)
        rows.append(row)
    return runs, jax.tree.map(lambda *x: np.stack(x), *rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_traced_schedule_is_followed_as_by_hand(name):
    schedule = SCHEDULES[name]
    runs, metrics = followed(schedule)
    states, workers = by_hand("a2c", schedule, 3, 8)
    for run, state in zip(runs, states, strict=True):
        assert_near(run.learner, state)
    joint = jax.tree.map(lambda *x: jnp.stack(x), *workers)
    assert_near(runs[-1].local.streams, joint)
    np.testing.assert_array_equal(metrics["lag"], schedule.delay)
    counts = np.bincount(schedule.worker, minlength=3)
    np.testing.assert_array_equal(runs[-1].local.unroll.units, counts)


@pytest.mark.slow
def test_a_schedule_that_ends_begins_again_as_by_hand():
    schedule = schedules.in_turn(2, 3, delay=2)
    runs, metrics = stepped(program_of("a2c", schedule, 2), 8)
    states, _ = by_hand("a2c", schedule, 2, 8)
    for run, state in zip(runs, states, strict=True):
        assert_near(run.learner, state)
    np.testing.assert_array_equal(metrics["lag"], [0, 1, 2, 0, 1, 2, 0, 1])


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["impala, lstm", "normalized a2c", "q-learning"])
def test_agents_follow_a_schedule_as_by_hand(name):
    run, _ = trained(program_of(name, EVENTS, 3), 7)
    states, _ = by_hand(name, EVENTS, 3, 7)
    assert_near(run.learner, states[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["impala, lstm", "normalized a2c"])
def test_only_data_are_stale_as_by_hand(name):
    schedule = schedules.in_turn(3, 7, delay=3)
    run, metrics = trained(program_of(name, schedule, 3, stale="data"), 7)
    states, _ = by_hand(name, schedule, 3, 7, stale="data")
    assert_near(run.learner, states[-1])
    np.testing.assert_array_equal(metrics["lag"], schedule.delay)
    gradients, _ = by_hand(name, schedule, 3, 7)
    assert differ(states[-1], gradients[-1])


def test_a_delay_makes_a_difference():
    first, second = (
        by_hand("a2c", SCHEDULES[name], 3, 8)[0][-1] for name in ("in turn", "together")
    )
    assert differ(first, second)


# The same numbers ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, speeds", [("a2c, rmsprop", (1.0, 1.0, 1.0)), ("q-learning", (1.0, 3.3))]
)
def test_copies_are_a_ring_in_less_or_more_memory(name, speeds):
    # Eight turns of a schedule of five: it begins again.
    schedule = schedules.simulated(schedules.steady(5, np.array(speeds)))
    runs = [
        trained(program_of(name, schedule, len(speeds), storage=storage), 8)
        for storage in ("ring", "copies")
    ]
    (ring, metrics), (copies, expected) = runs
    assert_equal(metrics, expected)
    assert_equal(ring.learner, copies.learner)
    assert_equal(ring.local.streams, copies.local.streams)
    assert len(ring.local.past.version) == schedule.delay.max() + 1
    assert len(copies.local.past.version) == len(speeds)


def test_memory_is_of_what_workers_read_and_of_the_delay():
    program = program_of("impala, lstm", schedules.in_turn(2, 9, delay=4), 2)
    run = jax.eval_shape(program.init, KEY)
    kept = [x.shape for x in run.local.past.leaves]
    params = [(5, *x.shape) for x in jax.tree.leaves(run.learner.params)]
    assert kept == params
    longer = program_of("a2c", schedules.in_turn(2, 9), 2, max_delay=6)
    assert len(jax.eval_shape(longer.init, KEY).local.past.version) == 7


@pytest.mark.slow
def test_a_run_in_parts_is_the_run_as_a_whole_bit_for_bit():
    """Ten turns in one call; turn by turn, saved after four, continued by a program
    made anew. The schedule begins again within."""
    program = program_of("a2c, rmsprop", EVENTS, 3)
    whole = jax.jit(scanned(program, 10))
    start = jax.jit(program.init)(KEY)
    expected, metrics = whole(start)
    assert_equal(whole(start), (expected, metrics))
    runs, first = stepped(program, 4)
    assert_equal(first, jax.tree.map(lambda x: x[:4], metrics))

    run = runs[-1]
    leaves, tree = jax.tree.flatten(run._replace(key=jax.random.key_data(run.key)))
    saved = tree.unflatten([jnp.array(np.asarray(x)) for x in leaves])
    saved = saved._replace(key=jax.random.wrap_key_data(saved.key))
    anew = program_of("a2c, rmsprop", EVENTS, 3)
    run, last = jax.jit(scanned(anew, 6))(saved)
    assert_equal(last, jax.tree.map(lambda x: x[4:], metrics))
    assert_equal(run, expected)


@pytest.mark.slow
def test_another_key_gives_another_run():
    first, again, other = (
        followed(SCHEDULES["in turn"], random.key(seed))[0][-1] for seed in (0, 0, 1)
    )
    assert_equal(first, again)
    assert differ(first.learner, other.learner)


# Traced schedules ----------------------------------------------------------------


@pytest.mark.slow
def test_members_of_a_population_have_delays_of_their_own():
    def member(values):
        schedule = schedules.in_turn(3, 8, values["delay"])
        return program_of("a2c", schedule, 3, max_delay=3)

    sweep = {"delay": np.array([0, 1, 3, 3, 4]), "seed": np.array([0, 1, 0, 1, 0])}
    many = population(member, sweep)
    runs, metrics = trained(many.program, 8)
    for index in range(4):
        delay, seed = int(sweep["delay"][index]), int(sweep["seed"][index])
        alone, row = followed(schedules.in_turn(3, 8, delay), random.key(seed))
        own = jax.tree.map(lambda x, i=index: x[i], runs)
        assert_near(own.learner, alone[-1].learner)
        assert_equal(own.progress, alone[-1].progress)
        np.testing.assert_array_equal(metrics["lag"][:, index], row["lag"])
    # The last one's is above max_delay from turn 4 on.
    np.testing.assert_array_equal(
        metrics["skipped"].T, [[0] * 8] * 4 + [[0] * 4 + [1] * 4]
    )
    # Taken out, a member is not traced, and so refused.
    with pytest.raises(ValueError, match=r"delays must be in 0 .. 3, got 0 .. 4"):
        many.member(runs, 4)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [(0, 4), (0, -1), (3, 0), (-1, 0)])
def test_a_traced_turn_that_does_not_fit_is_skipped(bad):
    schedule = schedules.in_turn(3, 8)
    schedule.worker[5], schedule.delay[5] = bad
    runs, metrics = followed(schedule)
    np.testing.assert_array_equal(metrics["skipped"], np.arange(8) == 5)
    assert_equal(runs[6].learner, runs[5].learner)
    assert runs[-1].progress.skipped == 1 and differ(runs[-1].learner, runs[6].learner)


# Staleness -----------------------------------------------------------------------


@pytest.mark.slow
def test_of_workers_that_read_together_those_past_the_bound_are_rejected():
    """Gorila: W - 1 - m of W in every round."""
    config = StalenessConfig("reject", max_staleness=1)
    runs, metrics = stepped(
        program_of("a2c", schedules.together(4, 4), 4, staleness=config), 12
    )
    rejected = np.reshape(metrics["rejected"], (3, 4))
    np.testing.assert_array_equal(rejected, [[0, 0, 1, 1]] * 3)
    # Those rejected are no updates, so that nobody's gradient gets any staler by them.
    np.testing.assert_array_equal(
        np.reshape(metrics["lag"], (3, 4)), [[0, 1, 2, 2]] * 3
    )
    assert int(runs[-1].local.version) == 6
    assert int(runs[-1].progress.updates) == 12 and runs[-1].progress.skipped == 0
    for before, after in ((2, 3), (3, 4), (6, 7)):
        assert_equal(runs[before].learner, runs[after].learner)
    assert differ(runs[4].learner, runs[5].learner)


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
    assert_near(run.learner.params, params)


class One(NamedTuple):
    params: jax.Array


def descent(rate):
    """Steps on x**2 / 2, whatever the environment shows."""
    return Agent(
        init=lambda key, step: One(jnp.float32(1.0)),
        initial_carry=lambda num_envs: (),
        act=lambda params, carry, step, key: (jnp.zeros(1, jnp.int32), carry, {}),
        greedy=lambda params, carry, step, key: (jnp.zeros(1, jnp.int32), carry, {}),
        grad=lambda state, batch, key, axis: (state.params, Info({"x": state.params})),
        apply=lambda state, grads, metrics: One(state.params - rate * grads),
    )


def test_a_quadratic_is_stable_just_below_the_bound_of_its_delay():
    """x' = x - rate * (x of so many steps before): 2 sin(pi / (4 delay + 2))."""
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
    run = jax.jit(many.program.init)(KEY)
    _, metrics = jax.jit(scanned(many.program, num_turns))(run)
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


def test_a_reward_that_is_not_finite_skips_its_turn_and_all_else_is_counted():
    env = probes.counter(2)

    def step(env_state, action, key):
        env_state, step, reward, discount = env.step(env_state, action, key)
        reward = jnp.where(step.obs[:, 1] == 10, jnp.nan, reward)
        return env_state, step, reward, discount

    config = NetworkConfig(widths=(4,))
    agent = a2c(actor_critic(env.observation_spec, env.action_spec, config), SGD)
    schedule = turns([0, 0, 1, 0], [0, 0, 1, 2])
    program = delayed(agent, env._replace(step=step), 6, schedule, num_workers=2)
    run, metrics = trained(program, 4)
    np.testing.assert_array_equal(metrics["skipped"], [0, 1, 0, 0])
    # What was skipped is no update, and nothing is staler by it.
    np.testing.assert_array_equal(metrics["lag"], [0, 0, 0, 1])
    assert int(run.local.version) == 3 and int(run.progress.updates) == 4
    assert run.progress.skipped == 1 and run.progress.skipped_in_a_row == 0
    # Every fourth row ends an episode: 1 of a worker's first 6, then 2, then 1.
    assert int(run.progress.env_steps) == 2 * (5 + 4 + 5 + 5)
    np.testing.assert_array_equal(metrics["episode_length"].count, [2, 4, 2, 2])
    assert jax.tree.map(lambda x: x.tolist(), run.local.unroll) == ([0, 0], [3, 1])


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
        ("max_staleness must be", {"staleness": StalenessConfig("scale", -1)}),
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


def test_members_may_differ_in_how_stale_gradients_may_be():
    """The bound is then traced, and no member is known to take fresh ones alone."""

    def one(bound):
        rule = StalenessConfig("reject")
        object.__setattr__(rule, "max_staleness", bound)  # the hook wants an int
        program = program_of("a2c", schedules.in_turn(2, 8, 1), 2, staleness=rule)
        return program.step(program.init(KEY))[1]["rejected"]

    shapes = jax.eval_shape(jax.vmap(one), jnp.array([0, 3]))
    assert shapes.shape == (2,)
