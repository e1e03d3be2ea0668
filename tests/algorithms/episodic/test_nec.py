"""NEC: targets, the loss and its gradients, writes, and what devices share."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near

from jaxrl_par import loops, random, rollout
from jaxrl_par.algorithms.episodic import MFECConfig, NECConfig, mfec, nec
from jaxrl_par.algorithms.episodic.mfec import episodes_kept
from jaxrl_par.algorithms.episodic.nec import Learned, loss
from jaxrl_par.algorithms.episodic.table import empty
from jaxrl_par.algorithms.episodic.writing import Entries, best, written
from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import Network, NetworkConfig, key_network
from jaxrl_par.testing import probes
from jaxrl_par.topologies.sharded import data_mesh, sharded
from jaxrl_par.types import Box, Discrete, TimeStep, Trajectory

SPECS = Box((2,)), Discrete(2)
CONFIG = NECConfig(gamma=0.5, capacity=16, num_neighbours=3, n_step=2, alpha=0.25)
ENTRIES = [((0, 0), 0, 1.0), ((1, 0), 0, 2.0), ((0, 2), 0, 3.0), ((1, 1), 1, 4.0)]


def shifted() -> Network:
    """Keys are observations and a parameter."""

    def read(params, carry, steps):
        return steps.obs + params, carry

    return Network(lambda key, step: jnp.zeros(2), lambda n: (), read, read, SPECS)


def known():
    """A table with `ENTRIES`."""
    keys, actions, values = zip(*ENTRIES, strict=True)
    there = jnp.ones(len(keys), bool)
    given = jnp.float32(keys), jnp.int32(actions), jnp.float32(values), there
    return written(empty(2, 16, 2), Entries(*given), best)


def rows(last=(False, False, False, False)):
    """Three steps of one lane, in steps of a quarter along the diagonal."""
    obs = 0.25 * jnp.arange(4.0)[:, None, None] * jnp.ones((1, 1, 2))
    last = jnp.array(last)[:, None]
    reward = jnp.where(last[:-1], 0.0, jnp.float32([[1], [2], [4]]))
    discount = jnp.where(last[:-1], 0.0, jnp.ones((3, 1)))
    steps = TimeStep(obs, jnp.zeros_like(last), last)
    return Trajectory(steps, jnp.int32([[0], [0], [1]]), reward, discount, {}, ())


def slow(query, action):
    """Q of the paper, with all entries of the action."""
    entries = [(k, v) for k, a, v in ENTRIES if a == action]
    squared = [np.sum((query - np.array(key)) ** 2) for key, _ in entries]
    kernel = [1 / (x + CONFIG.delta) for x in squared]
    return sum(w * v for w, (_, v) in zip(kernel, entries, strict=True)) / sum(kernel)


def best_of(row):
    return max(slow(0.25 * row * np.ones(2), a) for a in range(2))


@pytest.mark.slow
def test_the_loss_is_the_squared_error_to_targets_of_n_steps():
    table = known()
    learned = Learned(jnp.zeros(2), table.keys, table.values)
    value, info = jax.jit(loss, static_argnums=(3, 4))(
        learned, table, rows(), NETWORK, CONFIG
    )
    targets = [1 + 0.5 * 2 + 0.25 * best_of(2), 2 + 0.5 * 4 + 0.25 * best_of(3)]
    errors = [y - slow(0.25 * t * np.ones(2), 0) for t, y in enumerate(targets)]
    assert float(value) == pytest.approx(np.mean(np.square(errors)), rel=1e-5)
    np.testing.assert_allclose(info.priorities, np.max(np.abs(errors)), rtol=1e-5)
    with pytest.raises(RefusedError, match="takes lookahead = 3"):
        loss(learned, table, rows(), NETWORK, NECConfig(n_step=4))


@pytest.mark.slow
def test_what_was_acted_is_written_once_with_its_target():
    """An equal key moves by alpha, others are new; rows that are `last` are none."""
    agent = nec(NETWORK, optax.sgd(0.0), CONFIG)
    state = agent.init(random.key(0), jax.tree.map(lambda x: x[0], rows().steps))
    state = state._replace(table=known())
    observe = jax.jit(lambda state, acted: agent.observe(state, acted, Axis()))
    after = observe(state, rows((False, False, True, False))).table
    # (0, 0) was there, with value 1; the second bootstraps where the episode was cut.
    targets = 1 + 0.5 * 2 + 0.25 * best_of(2), 2 + 0.5 * best_of(2)
    expected = {(0, 0): 1 + 0.25 * (targets[0] - 1), (0.25, 0.25): targets[1]}
    pairs = zip(after.keys[0].tolist(), after.values[0].tolist(), strict=True)
    found = {tuple(key): value for key, value in pairs if key != [0, 0] or value}
    assert after.count.tolist() == [4, 1]
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-5)
    # Read at one tick, written at the next.
    assert int(after.clock) == 3 and int(after.stamp.min()) == 0


@pytest.mark.slow
def test_a_step_moves_network_keys_and_values_downhill():
    config = NECConfig(**{**vars(CONFIG), "value_rate": 0.1})
    agent = nec(NETWORK, optax.sgd(0.1), config)
    state = agent.init(random.key(0), jax.tree.map(lambda x: x[0], rows().steps))
    state = state._replace(table=known())

    @jax.jit
    def step(state):
        grads, _ = agent.grad(state, rows(), random.key(0), Axis())
        return agent.apply(state, grads, {}), grads

    after, grads = step(state)
    for grad in jax.tree.leaves(grads):
        assert np.any(grad)
    # Entries of the other action, and slots without one, stay as they are.
    assert not np.any(grads.keys[1]) and not np.any(grads.values[:, 3:])
    np.testing.assert_allclose(after.network, -0.1 * grads.network)
    np.testing.assert_allclose(
        after.table.values, state.table.values - 0.1 * grads.values, rtol=1e-6
    )
    np.testing.assert_array_equal(after.table.stamp, state.table.stamp)

    @jax.jit
    def error(state):
        learned = Learned(state.network, state.table.keys, state.table.values)
        return loss(learned, known(), rows(), NETWORK, config)[0]

    assert error(after) < error(state)


def test_bad_input_is_refused():
    small = NetworkConfig(widths=(4,), memory="lstm")
    with pytest.raises(RefusedError, match="memory must be none, got lstm"):
        key_network(*SPECS, small)
    network = key_network(SPECS[0], Box((1,)), NetworkConfig(widths=(4,)))
    with pytest.raises(RefusedError, match="single Discrete action, not Box"):
        nec(network, optax.sgd(0.1))
    with pytest.raises(RefusedError, match="delta must be above 0, got 0"):
        nec(NETWORK, optax.sgd(0.1), NECConfig(delta=0.0))


NETWORK = shifted()
ENV = probes.clock(4)
UNROLL = 5


def _mfec():
    config = MFECConfig(capacity=64, num_neighbours=3)
    kept = episodes_kept(ENV.specs[0], config, 4, UNROLL)
    return loops.remembering(mfec(*ENV.specs, config), loops.Remember(*kept))


def _nec():
    network = key_network(*ENV.specs, NetworkConfig(widths=(4,)), width=3)
    config = NECConfig(capacity=64, num_neighbours=3, n_step=2)
    return loops.learner_of(nec(network, optax.sgd(0.01), config))


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [2, 4])
@pytest.mark.parametrize("make", [_mfec, _nec])
def test_devices_have_the_table_of_their_joint_rows(make, num_devices):
    """Three unrolls in a row, learned by one device and by several."""
    learner = make()
    actor = learner.actor
    streams = rollout.start(actor, ENV, random.key(0))
    state = learner.init(random.key(1), streams.step)
    unrolls = []
    for i in range(3):
        streams, acted, _ = rollout.unroll(
            actor, ENV, learner.params(state), streams, random.key(2 + i), UNROLL
        )
        unrolls.append(acted)

    def learned(axis, index):
        own = index * (4 // num_devices) + jnp.arange(4 // num_devices)
        own = own if axis.name else jnp.arange(4)
        parts = [x.lanes(own) for x in unrolls]
        now, data = state, learner.start(parts[0])
        for part in parts:
            now, data, _ = learner.learn(now, data, part, random.key(9), axis)
        return now

    def init(key):
        return loops.Run(state, jnp.zeros(1), key, jnp.zeros(()))

    def step(run):
        now = learned(Axis("data"), jax.lax.axis_index("data"))
        return run._replace(learner=now), {}

    program = sharded(loops.Program(init, step), data_mesh(num_devices))
    run, _ = jax.jit(lambda key: program.step(program.init(key)))(random.key(0))
    expected = jax.jit(lambda: learned(Axis(), 0))()
    assert int(np.sum(expected.table.count)) > 8
    np.testing.assert_array_equal(run.learner.table.stamp, expected.table.stamp)
    assert_near(run.learner, expected)
    for leaf in jax.tree.leaves(run.learner.table):
        first, *others = (np.asarray(shard.data) for shard in leaf.addressable_shards)
        assert all((first == other).all() for other in others)
