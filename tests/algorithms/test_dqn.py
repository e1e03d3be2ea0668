"""DQN against its equations by hand, with memory to be followed, and on probes."""

from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near

from jaxrl_par import loops, losses, random, rollout
from jaxrl_par.algorithms.dqn import DQNCarry, DQNConfig, dqn, sequences
from jaxrl_par.algorithms.dqn.loss import loss
from jaxrl_par.networks import NetworkConfig, q_network
from jaxrl_par.networks.base import Network
from jaxrl_par.replay import PriorityConfig, Windows, prioritised, uniform
from jaxrl_par.testing import check_agent, check_learns, probes
from jaxrl_par.topologies.compiled import compiled, train
from jaxrl_par.types import TimeStep, Trajectory

SMALL = NetworkConfig(widths=(16,), memory_width=8)


def shown() -> Network:
    """The observations are the values; parameters are added to all of them."""

    def unroll(params, carry, steps):
        return steps.obs + params, carry

    return Network(lambda key, step: jnp.zeros(()), lambda n: (), unroll, unroll)


def halving() -> Network:
    """Memory h = h / 2 + x, cleared where an episode begins; Q = (h, 0) + params."""

    def apply(params, carry, step):
        h = jnp.where(step.first, 0.0, carry) / 2 + step.obs
        return jnp.stack([h, jnp.zeros_like(h)], axis=-1) + params, h

    def unroll(params, carry, steps):
        after, outputs = jax.lax.scan(
            lambda h, step: apply(params, h, step)[::-1], carry, steps
        )
        return outputs, after

    return Network(lambda key, step: jnp.zeros(()), jnp.zeros, apply, unroll)


def batch_of(obs, reward, *, discount=1.0, last=(), action=0, weight=None, first=()):
    """One lane unless `reward` has more, [L, K]; obs [L + 1, K, ...]."""
    obs, reward = jnp.asarray(obs, jnp.float32), jnp.asarray(reward, jnp.float32)
    rows = jnp.arange(len(obs))[:, None] * jnp.ones((1, reward.shape[1]), int)
    flags = (jnp.isin(rows, jnp.asarray(x)) for x in (first, last))
    extras = {} if weight is None else {"weight": jnp.asarray(weight)}
    action = jnp.broadcast_to(jnp.asarray(action, jnp.int32), reward.shape)
    discount = jnp.broadcast_to(jnp.asarray(discount, jnp.float32), reward.shape)
    carry = DQNCarry((), jnp.zeros(reward.shape[1]))
    return Trajectory(TimeStep(obs, *flags), action, reward, discount, extras, carry)


def loss_of(batch, config, network=None, online=0.0, target=0.0):
    network = network or shown()
    given = (jnp.float32(online), jnp.float32(target), batch, network, config)
    return loss(*given)


def target_of(*args, **options):
    _, info = loss_of(*args, **options)
    told = info.metrics["target"]
    return float(told.total / told.count)


def test_double_dqn_chooses_by_one_network_and_values_by_the_other():
    """Fact sheet: Q(s') = (1, 3, 2), target (5, 0.5, 4), r = 1, gamma 0.99."""

    def unroll(params, carry, steps):
        online, target = steps.obs[..., 0, :], steps.obs[..., 1, :]
        return jnp.where(params > 0.0, target, online) + 0.0 * params, carry

    network = Network(lambda key, step: jnp.zeros(()), lambda n: (), unroll, unroll)
    both = jnp.array([[1.0, 3.0, 2.0], [5.0, 0.5, 4.0]])
    batch = batch_of(jnp.stack([both, both])[:, None], [[1.0]])
    for double, expected in ((True, 1.495), (False, 5.95)):
        config = DQNConfig(double=double)
        actual = target_of(batch, config, network, target=1.0)
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.sample(2)
@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize(
    ("discount", "last", "expected"),
    [(1.0, (2,), 10.9), ([[1], [0], [1]], (2,), 2.8), (1.0, (), 10.21)],
)
def test_n_steps_end_where_the_episode_does(discount, last, expected, memory):
    """Rewards 1, 2, then the limit, whose observation is worth 10; the next episode
    pays 5, and its second observation is worth 100. Without an end: 1 + .9 * 2 + .81 *
    5 + .729 * v."""
    obs = jnp.array([0.0, 0.0, 10.0, 100.0])[:, None, None] * jnp.array([1.0, 0.5])
    reward = [[1.0], [2.0], [0.0 if last else 5.0]]
    if not last:
        obs = obs.at[3].set(jnp.array([3.36 / 0.729, 0.0]))
    batch = batch_of(obs, reward, discount=discount, last=last, first=(3,))
    network = shown()
    if memory:  # the same values, by the way that networks with memory go
        batch = batch._replace(carry=DQNCarry(jnp.zeros(1), jnp.zeros(1)))
    config = DQNConfig(gamma=0.9, n_step=3, huber_delta=None)
    np.testing.assert_allclose(target_of(batch, config, network), expected, rtol=1e-6)


def test_values_are_learned_in_the_space_of_h():
    """Fact sheet: r = (1, 2), n = 2, gamma 0.997, Q = 3 there: y = 3.352070."""
    obs = jnp.array([0.0, 0.0, 3.0])[:, None, None] * jnp.ones(2)
    config = DQNConfig(gamma=0.997, n_step=2, rescale=1e-3)
    actual = target_of(batch_of(obs, [[1.0], [2.0]]), config)
    np.testing.assert_allclose(actual, 3.352070, rtol=1e-6)


def test_windows_without_a_row_to_train_are_refused():
    config = DQNConfig(n_step=3)
    with pytest.raises(ValueError, match="lookahead = 2"):
        loss_of(batch_of(jnp.zeros((3, 1, 2)), [[1.0], [2.0]]), config)


def test_importance_weights_are_of_windows_and_the_mean_is_over_their_number():
    """Errors ((2, 1), (2, 1)), weights (1, 0.5): half of 2.25, not of 1.875 or 3."""
    obs = jnp.zeros((3, 2, 2))
    reward = jnp.array([[2.0, 1.0], [2.0, 1.0]])
    weight = jnp.broadcast_to(jnp.array([1.0, 0.5]), (2, 2))
    batch = batch_of(obs, reward, weight=weight)
    value, info = loss_of(batch, DQNConfig(huber_delta=None, eta=1.0))
    np.testing.assert_allclose(value, 2.25 / 2)
    # Priorities are those of the errors, whatever the weights.
    np.testing.assert_allclose(info.priorities, [2.0, 1.0], rtol=1e-6)


@pytest.mark.sample(1)
@pytest.mark.parametrize(("delta", "expected"), [(2.0, 4.0), (None, 4.5), (1.0, 2.5)])
def test_huber_grows_linearly_beyond_its_bound(delta, expected):
    batch = batch_of(jnp.zeros((2, 1, 2)), [[3.0]])
    config = DQNConfig(huber_delta=delta)
    value, info = loss_of(batch, config)
    np.testing.assert_allclose(value, expected)
    np.testing.assert_allclose(info.priorities, [3.0], rtol=1e-6)
    slope = jax.grad(lambda x: loss(x, x, batch, shown(), config)[0])
    np.testing.assert_allclose(slope(0.0), -(delta or 3.0))


def test_priorities_of_sequences_are_those_of_trained_rows_alone():
    """eta 0.9; burn-in errors (5, 3), trained (0.2, -0.4) and a `last` row: 0.39."""
    reward = jnp.array([5.0, 3.0, 0.2, -0.4, 0.0])[:, None]
    batch = batch_of(jnp.zeros((6, 1)), reward, last=(4,), first=(5,))
    batch = batch._replace(
        carry=DQNCarry(jnp.zeros(1), jnp.zeros(1)),
        extras={"padded": jnp.zeros((5, 1), bool)},
    )
    _, info = loss_of(batch, DQNConfig(gamma=0.0, burn_in=2), halving())
    np.testing.assert_allclose(info.priorities, [0.39], rtol=1e-6)


def test_memory_begins_anew_at_the_first_row_and_not_at_the_last_one():
    """Row 2 is `last`, row 3 `first`: h = 1, 1.5, 1.75, 1, 1.5 in both networks."""
    batch = batch_of(jnp.ones((5, 1)), jnp.zeros((4, 1)), last=(2,), first=(3,))
    batch = batch._replace(carry=DQNCarry(jnp.zeros(1), jnp.zeros(1)))
    index = jnp.array([[1], [2], [2], [4]])
    windows = sequences.Windows(batch.steps, batch.carry.memory)
    values = sequences.of_both(halving(), 0.0, 0.0, windows, index, double=True)
    np.testing.assert_array_equal(values.online[:, 0, 0], [1, 1.5, 1.75, 1])
    for ahead in (values.choosing_ahead, values.target_ahead):
        np.testing.assert_array_equal(ahead[:, 0, 0], [1.5, 1.75, 1.75, 1.5])


@pytest.mark.slow
@pytest.mark.parametrize("burn_in", [0, 1, 2])
def test_the_memory_of_a_window_is_that_of_acting(burn_in):
    """Whatever it begins with: rows that are run first, or a carry of its own."""
    network, rows = halving(), 6
    steps = batch_of(jnp.ones((rows + 1, 1)), jnp.zeros((rows, 1))).steps
    acted, carries, h = [], [], jnp.zeros(1)
    for row in range(rows):
        carries.append(h)
        step = jax.tree.map(itemgetter(row), steps)
        q_values, h = network.apply(0.0, h, step)
        acted.append(q_values)
    carry = DQNCarry(jnp.stack(carries), jnp.zeros((rows, 1)))
    whole = batch_of(jnp.ones((rows + 1, 1)), jnp.zeros((rows, 1)))
    start = jax.tree.map(lambda x: x[0], carry)
    whole = whole._replace(extras={"carry": carry}, carry=start)
    windows = Windows(2, burn_in)
    items = windows.kept(whole)
    for window in range(3):
        batch = windows.cut(items, jnp.zeros(1, int), jnp.full(1, window))
        index, padded = jnp.array([[1], [2]]), batch.extras.get("padded", [None])[0]
        read = (batch.steps, batch.carry.memory, burn_in, padded)
        read = sequences.Windows(*read)
        values = sequences.of_both(network, 0.0, 0.0, read, index, double=True)
        expected = jnp.stack(acted[2 * window : 2 * window + 2])
        np.testing.assert_array_equal(values.online, expected)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "memory", ["none", pytest.param("lstm", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("rescale", [None, 1e-3])
def test_who_acts_records_the_priorities_that_learning_would_give(memory, rescale):
    """At its parameters, of all rows: also where an episode or the unroll ends."""
    env, rows, n = probes.clock(3), 7, 3
    small = NetworkConfig(widths=(8,), memory=memory, memory_width=8)
    config = DQNConfig(n_step=n, rescale=rescale, record_priority=True)
    network = q_network(*env.specs, small)
    agent = dqn(network, optax.sgd(0.1), config)
    streams = rollout.start(agent, env, random.key(1))
    state = agent.init(random.key(2), streams.step)
    acted = agent.params(state), streams, random.key(3), rows
    _, unroll, _ = rollout.unroll(agent, env, *acted)
    assert set(unroll.extras) == {"priority"}
    last = unroll.rows.last
    assert np.any(last)
    each = 1 if memory == "none" else rows
    windows = Windows(each, lookahead=n - 1, constant_carry=True)
    slot, window = (jnp.ravel(x) for x in jnp.indices((3, rows // each)))
    batch = windows.cut(windows.kept(unroll._replace(extras={})), slot, window)
    given = state.online, state.target, batch, network, config
    learned = loss(*given)[1].priorities
    recorded = unroll.extras["priority"]
    if memory == "none":
        assert_near(jnp.ravel(recorded.T), learned)
    else:
        assert_near(losses.of_sequences(recorded, last, config.eta), learned)


def test_no_gradient_flows_into_what_is_burned_in():
    """Only the trained row's own reading of x counts: h = (c + x0) / 2 + x1."""
    batch = batch_of(jnp.ones((3, 1)), jnp.zeros((2, 1)))
    batch = batch._replace(
        carry=DQNCarry(jnp.zeros(1), jnp.zeros(1)),
        extras={"padded": jnp.zeros((2, 1), bool)},
    )

    def scaled() -> Network:
        def apply(scale, carry, step):
            h = carry / 2 + scale * step.obs
            return jnp.stack([h, h], axis=-1), h

        def unroll(scale, carry, steps):
            step = lambda h, step: apply(scale, h, step)[::-1]  # noqa: E731
            after, outputs = jax.lax.scan(step, carry, steps)
            return outputs, after

        return Network(lambda key, step: 1.0, jnp.zeros, apply, unroll)

    config = DQNConfig(gamma=0.0, burn_in=1, huber_delta=None)
    slope = jax.grad(lambda x: loss(x, x, batch, scaled(), config)[0])(1.0)
    # y = 0: the loss is h^2 / 2 with h = 1.5, and dh = 1 (with the burn-in it is 1.5).
    np.testing.assert_allclose(slope, 1.5)


def test_the_target_is_copied_by_period_or_follows():
    def after(config, num_updates):
        agent = dqn(shown(), optax.sgd(1.0), config)
        step = TimeStep(jnp.zeros((1, 2)), jnp.ones(1, bool), jnp.zeros(1, bool))
        state = agent.init(random.key(0), step)
        targets = []
        for _ in range(num_updates):
            state = agent.apply(state, jnp.float32(-1.0), {})
            targets.append(float(state.target))
        return targets

    assert after(DQNConfig(target_period=3), 7) == [0, 0, 3, 3, 3, 6, 6]
    assert after(DQNConfig(polyak_rate=0.5), 3) == [0.5, 1.25, 2.125]


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [2, 10])
def test_a_period_counts_updates_however_many_rows_a_step_has(num_envs):
    """And where it was, in a run that goes on with an agent that is made again."""
    env = probes.clock(num_envs)

    def made():
        agent = dqn(
            q_network(*env.specs, SMALL), optax.sgd(0.1), DQNConfig(target_period=3)
        )
        buffer = uniform(4 * num_envs, 4, Windows(1, constant_carry=True))
        return compiled(loops.replayed(agent, buffer), env, 2)

    def copies(run, updates):
        """Those after which the target is the online network."""
        program, found = jax.jit(made().step), []
        for update in updates:
            run, _ = program(run)
            same = jax.tree.map(jnp.array_equal, run.learner.online, run.learner.target)
            if all(jax.tree.leaves(same)):
                found.append(update)
        return run, found

    half, before = copies(made().init(random.key(0)), range(1, 5))
    _, after = copies(half, range(5, 11))
    assert before + after == [3, 6, 9]


@pytest.mark.slow
def test_before_a_buffer_is_ready_nothing_moves():
    """Neither Adam's count nor its moments, nor the phase of the target."""
    env = probes.clock(4)
    agent = dqn(q_network(*env.specs, SMALL), optax.adam(0.1), DQNConfig())
    windows = Windows(1, constant_carry=True)
    learner = loops.replayed(agent, prioritised(16, 6, windows, min_size=9))
    run, _ = train(compiled(learner, env, 2), 2)
    assert int(run.learner.opt_state[0].count) == int(run.learner.phase) == 0
    assert int(run.local.data.updates) == 0
    run, _ = train(compiled(learner, env, 2), 4)
    assert int(run.learner.opt_state[0].count) == int(run.learner.phase) == 2
    assert int(run.local.data.updates) == 2


@pytest.mark.slow
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_it_keeps_the_contract_of_agents(memory, dueling):
    env = probes.clock(4)
    network = NetworkConfig(widths=(8,), memory=memory, memory_width=8)
    net = q_network(*env.specs, network, dueling=dueling)
    check_agent(dqn(net, optax.sgd(0.1), DQNConfig()), env)


LEARN = {
    "uniform": (DQNConfig(anneal_steps=2_000, target_period=10), uniform),
    "prioritised": (
        DQNConfig(anneal_steps=2_000, target_period=10, n_step=3),
        prioritised,
    ),
    "ranks": (
        DQNConfig(anneal_steps=2_000, target_period=10),
        partial(prioritised, config=PriorityConfig("rank")),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARN)
def test_it_learns_what_pays_later(name):
    config, buffer = LEARN[name]
    env = probes.delayed_reward(8)
    agent = dqn(q_network(*env.specs, SMALL), optax.adam(1e-2), config)
    windows = Windows(1, lookahead=config.n_step - 1, constant_carry=True)
    learner = loops.replayed(agent, buffer(64, 32, windows), updates_per_step=4)
    check_learns(learner, env, 0.9, num_updates=150)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DQNConfig(gamma=1.5), "gamma must be"),
        (DQNConfig(n_step=0), "n_step must be at least 1, got 0"),
        (DQNConfig(huber_delta=0.0), "huber_delta must be above 0"),
        (DQNConfig(polyak_rate=2.0), "polyak_rate must be"),
    ],
)
def test_bad_settings_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        dqn(shown(), optax.sgd(0.1), config)
