"""QT-Opt against its equations by hand and in NumPy, and on probes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near

from jaxrl_par import loops, random, rollout
from jaxrl_par.algorithms.qt_opt import (
    Copies,
    Labelled,
    QTOptConfig,
    labelled,
    nets_of,
    qt_opt,
)
from jaxrl_par.algorithms.qt_opt.agent import bernoulli_loss
from jaxrl_par.algorithms.qt_opt.labels import row_keys
from jaxrl_par.axis import Axis
from jaxrl_par.networks import NetworkConfig, candidate_values
from jaxrl_par.networks.candidates import CandidateValues
from jaxrl_par.replay import Windows, uniform
from jaxrl_par.testing import check_agent, check_learns, probes
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.types import Box, Discrete, TimeStep, Trajectory

ONE = Box((1,), low=-1.0, high=1.0)
SMALL = NetworkConfig(widths=(8,), activation="relu")
SGD = optax.chain(optax.trace(decay=0.0), optax.sgd(0.1))
KEY = random.key(0)
VARIANTS = ("single", "double", "clipped")


def constant(shape=()) -> CandidateValues:
    """The parameter is the logit of everything; logits are [N, C, *shape]."""

    def logits(params, seen, unit):
        ones = jnp.ones((*unit.shape[:2], *shape))
        return params * ones

    return CandidateValues(
        init=lambda key, step: jnp.float32(0.0),
        embed=lambda params, steps: jnp.zeros((steps.first.shape[0], 1)),
        logits=logits,
        specs=(ONE, ONE),
    )


def logit(p):
    return jnp.float32(np.log(p / (1 - p)))


def batch_of(reward, *, discount=1.0, last=(), weight=None):
    """[1, K], whose observations are K numbers."""
    reward = jnp.asarray([reward], jnp.float32)
    flags = jnp.zeros((2, reward.shape[1]), bool)
    flags = flags.at[0, jnp.asarray(last, int)].set(True)
    obs = jnp.arange(reward.size * 2.0).reshape(2, -1, 1)
    discount = jnp.broadcast_to(jnp.asarray(discount, jnp.float32), reward.shape)
    extras = {} if weight is None else {"weight": jnp.asarray([weight], jnp.float32)}
    action = jnp.zeros((*reward.shape, 1))
    steps = TimeStep(obs, flags & False, flags)
    return Trajectory(steps, action, reward, discount, extras, ())


def labels_of(batch, copies, target="clipped", values=None):
    nets = nets_of(values or constant(), ONE, QTOptConfig(target=target))
    return labelled(copies, batch, KEY, Axis(), nets)


@pytest.mark.parametrize(
    ("target", "value"),
    [
        pytest.param("single", 0.5, marks=pytest.mark.slow),
        pytest.param("double", 0.25, marks=pytest.mark.slow),
        ("clipped", 0.25),
    ],
)
def test_targets_are_those_of_the_variants(target, value):
    """Q_1 = 0.5 and Q_2 = 0.25, gamma 0.9: rewards 0 and 1, an end, a time limit, a
    cost of each step. What leaves [0, 1] is clipped."""
    reward, discount = [0.0, 1.0, 0.0, 0.0, -0.05], [1.0, 1.0, 0.0, 1.0, 0.0]
    batch = batch_of(reward, discount=[discount])
    copies = Copies(logit(0.5), logit(0.25))
    expected = [0.9 * value, 1.0, 0.0, 0.9 * value, 0.0]
    found = labels_of(batch, copies, target).target
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # The lower one, whichever that is.
    swapped = labels_of(batch, Copies(*reversed(copies)), target).target[0]
    expected = {"single": 0.25, "double": 0.5, "clipped": 0.25}[target]
    np.testing.assert_allclose(swapped, 0.9 * expected, rtol=1e-6)


@pytest.mark.slow
def test_variants_coincide_where_copies_are_equal_and_the_clipped_one_is_lowest():
    """The sheet's checks 2 and 3, with random networks."""
    values = candidate_values(ONE, ONE, SMALL)
    batch = batch_of(np.zeros(16))
    step = jax.tree.map(lambda x: x[0], batch.steps)
    one, two = (values.init(random.key(i), step) for i in range(2))
    same, other = Copies(one, one), Copies(one, two)
    equal = [labels_of(batch, same, x, values).target for x in VARIANTS]
    np.testing.assert_array_equal(equal[0], equal[2])
    assert_near(equal[0], equal[1])
    found = {x: labels_of(batch, other, x, values).target for x in VARIANTS}
    lower = np.minimum(found["single"], found["double"])
    np.testing.assert_array_equal(found["clipped"], lower)
    assert not np.array_equal(found["single"], found["double"])


@pytest.mark.slow
def test_columns_are_no_rows():
    """Trap 4: values [N, 1] beside rewards [N] are refused, not broadcast."""
    batch, copies = batch_of([1.0, 2.0, 3.0]), Copies(logit(0.5), logit(0.25))
    rows = labels_of(batch, copies)

    def column(params, seen, unit):
        return params * jnp.ones((*unit.shape[:2], 1))

    wrong = constant()._replace(logits=column)
    with pytest.raises(ValueError, match=r"got \[3, 1\] and \[3\]"):
        bernoulli_loss(jnp.float32(0.0), wrong, rows)


def test_the_loss_is_the_cross_entropy_of_probabilities():
    """-y log Q - (1 - y) log(1 - Q), whose slope in the logit is Q - y; rows that are
    `last` count among all, and weigh nothing."""
    target, weight = np.array([0.0, 0.3, 1.0, 0.7]), np.array([1.0, 0.5, 1.0, 1.0])
    last = np.array([False, False, False, True])
    rows = Labelled(
        TimeStep(jnp.zeros((4, 1)), jnp.asarray(last), jnp.asarray(last)),
        jnp.zeros((4, 1)),
        *(jnp.asarray(x, jnp.float32) for x in (target, weight)),
        jnp.asarray(last),
    )
    slope_of = jax.value_and_grad(lambda x: bernoulli_loss(x, constant(), rows)[0])
    for q in (0.2, 0.5, 0.9):
        loss, slope = slope_of(logit(q))
        entropy = -target * np.log(q) - (1 - target) * np.log(1 - q)
        counted = weight * ~last
        np.testing.assert_allclose(loss, np.sum(counted * entropy) / 4, rtol=1e-5)
        np.testing.assert_allclose(slope, np.sum(counted * (q - target)) / 4, rtol=1e-5)
    # A logit that is surely wrong: the loss is large, and no infinity.
    loss, slope = slope_of(jnp.float32(200.0))
    np.testing.assert_allclose([loss, slope], [(200 + 0.35 * 200) / 4, 1.35 / 4])


def applied(config, online, count):
    """The copies after so many updates that leave the parameter as it is."""
    agent = qt_opt(constant(), ONE, optax.sgd(0.0), config)
    state = agent.init(KEY, TimeStep(*3 * [jnp.zeros(1, bool)]))
    state = state._replace(params=jnp.float32(online))

    def once(state, _):
        state = agent.apply(state, jnp.float32(0.0), {})
        return state, state.copies

    return jax.lax.scan(once, state, length=count)[1]


def test_a_slow_copy_goes_as_far_as_its_rate_says():
    """The sheet's check 4: 0.9999 for 10,000 updates, from 0 towards 1: 0.63214."""
    config = QTOptConfig(target_rate=1e-4, target_period=100, delay=10_000)
    copies = applied(config, 1.0, 10_000)
    np.testing.assert_allclose(copies.slow[-1], 0.63214, atol=1e-5)


def test_slow_copies_near_what_they_follow_still_move():
    """Trap 9: online 1.001, target 1, after 1e5 updates 1.00099995; and a rate whose
    steps float32 loses is refused."""
    config = QTOptConfig(target_rate=1e-4, target_period=100)
    state = applied(config, 1.0, 1)  # equal copies are left as they are, to the bit
    assert float(state.slow[-1]) == float(np.float32(0.0)) and config.problems() == []
    (wrong,) = replace(config, target_period=1).problems()
    assert wrong.startswith("target_rate = 0.0001 makes steps that float32 loses")


@pytest.mark.parametrize("delay", [1, 3])
def test_the_delayed_copy_is_what_the_slow_one_was(delay):
    """By `delay` updates at least, and less than twice as many."""
    copies = applied(QTOptConfig(target_rate=0.5, delay=delay), 1.0, 12)
    slow, delayed = np.asarray(copies.slow), np.asarray(copies.delayed)
    before = np.concatenate([[0.0], slow])
    for n in range(2 * delay, 12):
        (age,) = (n + 1 - np.flatnonzero(before == delayed[n])).tolist()
        assert delay <= age < 2 * delay or age == delay


@pytest.mark.slow
def test_each_row_has_a_key_of_its_own():
    """Trap 7: also each row of two instances, which together have those of one."""
    batch = batch_of(np.zeros(6))
    whole = jax.random.key_data(row_keys(KEY, batch, Axis()))
    assert len({tuple(x) for x in whole.tolist()}) == 6
    halves = batch.along_lanes(lambda axis, x: jnp.stack(jnp.split(x, 2, axis)))
    given = jax.vmap(lambda x: row_keys(KEY, x, Axis("half")), axis_name="half")(halves)
    np.testing.assert_array_equal(jax.random.key_data(given).reshape(6, -1), whole)


def made(env, network=SMALL, optimizer=SGD, **options):
    values = candidate_values(*env.specs, network)
    return qt_opt(values, env.action_spec, optimizer, QTOptConfig(**options))


@pytest.mark.slow
def test_it_keeps_the_contract_of_agents():
    check_agent(made(probes.continuous_action(4)), probes.continuous_action(4))


@pytest.mark.slow
def test_an_update_on_two_devices_is_one_on_the_joint_batch():
    env = probes.continuous_action(8)
    agent = made(env)
    streams = rollout.start(agent, env, random.key(0))
    state = agent.init(random.key(1), streams.step)
    acted = agent.params(state), streams, random.key(2), 1
    batch, key = rollout.unroll(agent, env, *acted)[1], random.key(3)
    expected, _ = jax.jit(lambda state: loops.learn(agent, state, batch, key))(state)

    def init(key):
        own = batch.lanes(4 * jax.lax.axis_index("data") + jnp.arange(4))
        return loops.Run(state, own, key, jnp.zeros(()))

    def step(run):
        given = agent, run.learner, run.local, run.key
        learner, metrics = loops.learn(*given, axis=Axis("data"))
        return run._replace(learner=learner), metrics

    program = sharded(loops.Program(init, step), data_mesh(2))
    run, _ = jax.jit(lambda key: program.step(program.init(key)))(key)
    assert_near(*(x.opt_state[0].trace for x in (run.learner, expected)))


def near_enough(num_envs):
    """Pays 1 - (action - obs)^2, but at least 0, in episodes of one step."""
    env = probes.continuous_action(num_envs)

    def step(env_state, action, key):
        env_state, step, reward, discount = env.step(env_state, action, key)
        paid = jnp.where(step.first, 0.0, jnp.maximum(1.0 + reward, 0.0))
        return env_state, step, paid, discount

    return env._replace(step=step)


@pytest.mark.slow
def test_it_learns_to_name_what_it_sees():
    env = near_enough(8)
    agent = made(env, NetworkConfig(widths=(32,)), optax.adam(3e-3), target_rate=0.05)
    learner = loops.replayed(agent, uniform(256, 64, Windows(1)), updates_per_step=8)
    found = check_learns(learner, env, -0.15, num_updates=400)
    episodes = agent._replace(act=agent.greedy)
    streams = rollout.start(episodes, env, random.key(1))
    acted = agent.params(found), streams, random.key(2), 64
    _, unroll, _ = rollout.unroll(episodes, env, *acted)
    # Who does not see gets 2/3 at best.
    assert float(unroll.reward.sum() / unroll.env_steps) > 0.95


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Discrete(3), "for Discrete ones, take dqn"),
        (Box((1,)), "a lower and a higher bound"),
        (Box((1,), np.dtype(np.int32), 0.0, 1.0), "real numbers"),
    ],
)
def test_actions_that_cannot_be_searched_are_refused(spec, message):
    for make in (
        lambda: candidate_values(ONE, spec, SMALL),
        lambda: qt_opt(constant(), spec, SGD),
    ):
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
        ({"delay": 0}, "delay must be at least 1, got 0"),
        ({"epsilon": -0.1}, "epsilon must be in"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        qt_opt(constant(), ONE, SGD, QTOptConfig(**options))


def test_networks_that_it_cannot_take_are_refused():
    for config, message in (
        (NetworkConfig(memory="gru"), "network.memory must be none here, got gru"),
        (NetworkConfig(widths=()), "network.widths must have a layer"),
    ):
        with pytest.raises(ValueError, match=message):
            candidate_values(ONE, ONE, config)
