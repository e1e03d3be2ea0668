"""R2D2's memory: where windows begin, what a zero start forgets, how stale it is."""

from dataclasses import replace
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_par import random, rollout
from jaxrl_par.algorithms.dqn import DQNConfig, dqn
from jaxrl_par.algorithms.dqn.loss import loss
from jaxrl_par.axis import Axis
from jaxrl_par.networks import NetworkConfig, q_network
from jaxrl_par.replay import Windows, uniform
from jaxrl_par.testing import probes

ENV, ROWS, BURN_IN = probes.memory(3, length=6), 12, 4
LSTM = q_network(
    *ENV.specs, NetworkConfig(widths=(8,), memory="lstm", memory_width=8), dueling=True
)
STORED = DQNConfig(
    gamma=0.9, burn_in=BURN_IN, record_carry=True, measure_staleness=True
)
LOSS = jax.jit(loss, static_argnums=(3, 4))


def acted(config=STORED):
    """Parameters, and the second unroll of acting with them, which begins within an
    episode."""
    agent = dqn(LSTM, optax.sgd(0.1), config)

    def act(key):
        streams = rollout.start(agent, ENV, key)
        state = agent.init(key, streams.step)
        # With biases: else there is nothing but zeros to be seen and to be valued.
        state = state._replace(online=moved(state.online, seed=1))
        params = agent.params(state)
        for i in range(2):
            given = (params, streams, random.key(i), ROWS)
            streams, trajectory, _ = rollout.unroll(agent, ENV, *given)
        return state.online, trajectory

    return jax.jit(act)(random.key(0))


def batch_of(trajectory, config, *, trained=4, batch_size=64):
    """Windows of it, by the way of a buffer."""
    unread = config.start == "zero"
    windows = Windows(trained, config.burn_in, 0, constant_carry=unread)
    buffer = uniform(3, batch_size, windows)
    data = buffer.add(buffer.init(trajectory), None, trajectory)
    return buffer.sample(data, trajectory, random.key(1), Axis())[0]


def measured(params, batch, config):
    _, info = LOSS(params, params, batch, LSTM, config)
    names = ("staleness_first", "staleness_last")
    means = (info.metrics[name] for name in names)
    return [float(x.total / x.count) for x in means]


def moved(params, seed=0):
    """The parameters after an update."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape), params)


@pytest.mark.slow
def test_a_stored_start_is_the_memory_of_acting_bit_for_bit():
    """Before each window's first row that was acted, also where it crosses an end."""
    _, trajectory = acted()
    assert bool(trajectory.steps.last[1:-1].any())
    batch = batch_of(trajectory, STORED)
    starts = np.where(batch.extras["padded"][0], BURN_IN, 0)
    assert {*starts} == {0, BURN_IN}
    for kept, at_rows in zip(
        jax.tree.leaves(batch.carry.memory),
        jax.tree.leaves(batch.extras["memory"]),
        strict=True,
    ):
        np.testing.assert_array_equal(kept, at_rows[starts, np.arange(starts.size)])


def test_a_zero_start_reads_no_memory_of_acting():
    """Whatever was stored: the loss is that from an empty memory, before a burn-in and,
    where there is nothing to burn in, without one."""
    params, trajectory = acted(replace(STORED, record_carry=False))
    zero = replace(STORED, start="zero", measure_staleness=False)
    batch = batch_of(trajectory, zero)
    assert np.any(jax.tree.leaves(batch.carry.memory)[0])
    empty = jax.tree.map(jnp.zeros_like, batch.carry.memory)
    spoilt = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), empty)
    given = batch._replace(carry=batch.carry._replace(memory=spoilt))
    value, _ = LOSS(params, params, given, LSTM, zero)
    given = batch._replace(carry=batch.carry._replace(memory=empty))
    expected, _ = LOSS(params, params, given, LSTM, replace(zero, start="stored"))
    np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("burn_in", [BURN_IN, pytest.param(0, marks=pytest.mark.slow)])
def test_nothing_is_stale_before_an_update(burn_in):
    config = replace(STORED, burn_in=burn_in)
    params, trajectory = acted(config)
    batch = batch_of(trajectory, config)
    assert max(measured(params, batch, config)) < 1e-5
    first, last = measured(moved(params), batch, config)
    assert last > 1e-3
    # Without a burn-in, a window begins with the memory of acting itself.
    assert first > 1e-3 if burn_in else first < 1e-6


@pytest.mark.slow
def test_a_burn_in_makes_up_for_a_zero_start():
    """There, memory is not that of acting even before an update."""
    online, trajectory = acted(replace(STORED, record_carry=False))
    zero = replace(STORED, start="zero", burn_in=0)
    burned = replace(zero, burn_in=BURN_IN)
    for params in (online, moved(online)):
        (first, _), (first_burned, _) = (
            measured(params, batch_of(trajectory, config), config)
            for config in (zero, burned)
        )
        assert first > 1e-2 and first_burned < 0.7 * first


@pytest.mark.slow
def test_staleness_follows_its_formula():
    """Window by window, in NumPy, with memory from the network's own steps."""
    params, trajectory = acted()
    params, batch = moved(params), batch_of(trajectory, STORED, batch_size=4)
    apply, expected = jax.jit(LSTM.apply), []
    for k in range(4):
        lane = jax.tree.map(itemgetter(slice(k, k + 1)), batch.carry.memory)
        steps = jax.tree.map(lambda x, k=k: x[:, k : k + 1], batch.steps)
        memory = jax.tree.map(lambda x, k=k: x[:, k : k + 1], batch.extras["memory"])
        rows = range(BURN_IN if batch.extras["padded"][0, k] else 0, BURN_IN + 4)
        values, stored = [], []
        for row in rows:
            step = jax.tree.map(itemgetter(row), steps)
            q_values, lane = apply(params, lane, step)
            as_acted, _ = LSTM.apply(
                params, jax.tree.map(itemgetter(row), memory), step
            )
            values.append(np.asarray(q_values[0]))
            stored.append(np.asarray(as_acted[0]))
        values, stored = values[-4:], stored[-4:]
        difference = np.linalg.norm(np.subtract(values, stored), axis=-1)
        expected.append(difference[[0, -1]] / abs(np.max(values)))
    actual = measured(params, batch, STORED)
    np.testing.assert_allclose(actual, np.mean(expected, axis=0), rtol=1e-4)


@pytest.mark.slow
def test_a_burn_in_refreshes_what_was_stored():
    """After an update, memory is nearer to that of the new parameters, had they read
    the stream from its beginning, than what was stored."""
    agent = dqn(LSTM, optax.sgd(0.1), STORED)
    key = random.key(0)
    streams = rollout.start(agent, ENV, key)
    old = agent.params(agent.init(key, streams.step))
    _, trajectory, _ = rollout.unroll(agent, ENV, old, streams, key, ROWS)
    params, begin = moved(old.online), ROWS - 5
    empty = LSTM.initial_carry(3)
    until = jax.tree.map(lambda x: x[:begin], trajectory.steps)
    _, fresh = LSTM.unroll(params, empty, until)
    at = lambda row: jax.tree.map(itemgetter(row), trajectory.extras["memory"])  # noqa: E731
    stored, before = at(begin), at(begin - BURN_IN)
    rows = jax.tree.map(lambda x: x[begin - BURN_IN : begin], trajectory.steps)
    _, burned = LSTM.unroll(params, before, rows)

    def far(memory):
        return float(optax.tree.norm(jax.tree.map(jnp.subtract, memory, fresh)))

    assert 0 < far(burned) < 0.5 * far(stored)


def test_staleness_needs_memory():
    net = q_network(*ENV.specs, NetworkConfig(widths=(4,)))
    agent = dqn(net, optax.sgd(0.1), DQNConfig(measure_staleness=True))
    with pytest.raises(ValueError, match="is for networks with memory"):
        agent.init(random.key(0), ENV.reset(random.key(0))[1])
