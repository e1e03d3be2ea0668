"""A learner that waits for no actor: what it learns from, in which ratio, and again."""

import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nearness import assert_near

from jaxrl_par import loops, random, rollout
from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.dqn import DQNConfig, dqn
from jaxrl_par.axis import Axis
from jaxrl_par.bridge.actor_learner.decoupled import DecoupledLearner
from jaxrl_par.bridge.actor_learner.learner import Batch
from jaxrl_par.envs.host import from_pure
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops.pace import PaceConfig
from jaxrl_par.networks import NetworkConfig, actor_critic, q_network
from jaxrl_par.replay import PriorityConfig, Windows, prioritised
from jaxrl_par.testing import probes
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, repeat_recorded, threads
from jaxrl_par.training.checkpoints import Checkpoints, state_hash
from jaxrl_par.types import Trajectory

NUM_ENVS, LENGTH, BATCH = 2, 4, 6
ENV = probes.clock(NUM_ENVS)
KEY = random.key(3)


def make_env(key):
    return from_pure(ENV, key)


def learner(shares=1, updates_per_step=2):
    """Ape-X in small: prioritised from the start, by whoever acted."""
    net = q_network(*ENV.specs, NetworkConfig(widths=(8,)))
    config = DQNConfig(
        n_step=2, target_period=3, exploration="ladder", record_priority=True
    )
    buffer = prioritised(
        8 // shares,
        BATCH // shares,
        Windows(1, lookahead=1, constant_carry=True),
        PriorityConfig(first="recorded"),
        min_size=4 // shares,
    )
    agent = dqn(net, optax.adam(0.01), config)
    return loops.replayed(agent, buffer, updates_per_step=updates_per_step)


def decoupled(ratio=None, run_ahead=None, **options):
    given = {"num_actors": 2, "schedule": "decoupled"} | options
    return ThreadsConfig(pace=PaceConfig(ratio, run_ahead), **given)


def engine(config, num_devices=1, make=make_env, **options):
    made = learner(num_devices, **options)
    return threads(made, make, LENGTH, config, data_mesh(num_devices))


def advanced(bridge, num_updates):
    try:
        return bridge.advance(bridge.init(KEY), num_updates)
    finally:
        bridge.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_devices", "inference"),
    [
        (1, "local"),
        pytest.param(2, "local", marks=pytest.mark.slow),
        pytest.param(1, "central", marks=pytest.mark.slow),
    ],
)
def test_a_recorded_run_is_repeated_bit_for_bit(num_devices, inference, tmp_path):
    config = decoupled(4.0, 3, inference=inference)
    bridge = engine(config, num_devices)
    bridge.record(tmp_path / "schedule.jsonl")
    first, told = advanced(bridge, 12)
    lines = (tmp_path / "schedule.jsonl").read_text().splitlines()
    assert len(lines) == 12 and "[]" in lines
    again = repeat_recorded(
        learner(num_devices),
        make_env,
        LENGTH,
        config,
        data_mesh(num_devices),
        tmp_path / "schedule.jsonl",
    )
    second, told_again = advanced(again, 12)
    same = [x._replace(local=x.local._replace(debt=())) for x in (first, second)]
    assert state_hash(same[0]) == state_hash(same[1])
    for one, other in zip(*map(jax.tree.leaves, (told, told_again)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_batch_that_came_is_added_before_the_update():
    made = DecoupledLearner.__new__(DecoupledLearner)
    made._compiled_add = lambda run, x: run._replace(local=[*run.local, int(x.reward)])
    made._compiled_go_on = lambda run: (run, {}, jnp.bool_(True))
    empty = Trajectory(*[()] * len(Trajectory._fields))
    for given in ([0, 1, 2], [], [3]):
        batches = [Batch(empty._replace(reward=x), []) for x in given]
        run, _, _ = made.update(loops.new_run((), [], KEY), batches)
        assert run.local == given


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize(("ratio", "run_ahead"), [(0.5, 3), (2.0, 2), (2.0, None)])
def test_rows_trained_for_each_row_inserted_are_within_bounds(
    ratio, run_ahead, tmp_path
):
    """After 4 unrolls of one lane it is ready; then debt is in rows: `ratio` for each
    of the 8 rows of an insert, 12 for an update."""
    bridge = engine(decoupled(ratio, run_ahead))
    bridge.record(tmp_path / "schedule.jsonl")
    run, _ = advanced(bridge, 40)
    rows = [len(json.loads(x)) for x in (tmp_path / "schedule.jsonl").open()]
    ready, debt, kept = False, 0, 0
    for inserts in rows:
        kept += inserts * NUM_ENVS
        if ready:
            debt += 8 * ratio * inserts
            assert run_ahead is None or debt <= 8 * ratio * run_ahead
            debt -= 2 * BATCH
            assert debt >= 0
        ready = kept >= 4
    assert int(run.local.debt) == debt * (2 if ratio == 0.5 else 1)  # as 1 / 2
    assert int(run.progress.updates) == 40
    unrolls = run.local.data.unrolls
    assert int(unrolls.laps[0]) * 8 + int(unrolls.next[0]) == sum(rows) * NUM_ENVS


@pytest.mark.slow
def test_actors_get_parameters_every_so_many_updates(tmp_path):
    bridge = engine(decoupled(4.0, 3, publish_interval=3))
    bridge.record(tmp_path / "schedule.jsonl")
    advanced(bridge, 60)
    lines = (tmp_path / "schedule.jsonl").read_text().splitlines()
    versions = {entry[3] for line in lines for entry in json.loads(line)}
    assert len(versions) > 2 and all(x % 3 == 0 for x in versions)


def test_the_learner_goes_on_while_no_actor_does():
    """Nothing comes after the unroll with which it is ready."""
    gate, acted = threading.Event(), threading.Event()
    unrolls = []

    def make(key):
        env = make_env(key)
        step = env.step

        def gated(action):
            unrolls.append(0)
            if len(unrolls) > 3 * LENGTH:
                acted.set()
                gate.wait(60)
            return step(action)

        env.step = gated
        return env

    bridge = engine(decoupled(num_actors=1), make=make)
    try:
        run = bridge.init(KEY)
        run, told = bridge.advance(run, 30)
        assert acted.wait(60)
        run, told = bridge.advance(run, 20)
        assert int(run.progress.updates) == 50
        assert int(run.learner.opt_state[0].count) >= 2 * 48
        assert float(told["lag"].count.sum()) == 0
    finally:
        gate.set()
        bridge.close()


@pytest.mark.slow
def test_an_update_before_it_is_ready_changes_nothing():
    bridge = engine(decoupled(num_actors=1, queue_size=1), updates_per_step=1)
    try:
        run = bridge.init(KEY)
        start = jax.device_get(run.learner.online)
        run, _ = bridge.advance(run, 1)
    finally:
        bridge.close()
    assert int(run.learner.opt_state[0].count) == 0
    for x, y in zip(*map(jax.tree.leaves, (start, run.learner.online)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_it_goes_on_from_a_checkpoint_with_its_debt(tmp_path):
    config = decoupled(2.0, 2)
    half, _ = advanced(engine(config), 11)
    debt = int(half.local.debt)
    with Checkpoints(tmp_path / "checkpoints", {}, 2) as store:
        store.save(11, half)
        bridge = engine(config)
        restored = store.restore(bridge.init(KEY))
    assert int(restored.local.debt) == debt
    path = tmp_path / "schedule.jsonl"
    path.write_text("[]\n" * 11)
    bridge.record(path)
    try:
        bridge.resume(restored)
        run, _ = bridge.advance(restored, 9)
    finally:
        bridge.close()
    inserts = [len(json.loads(x)) for x in path.open()][11:]
    assert int(run.local.debt) == debt + sum(16 * n - 2 * BATCH for n in inserts)
    assert int(run.progress.updates) == 20


@pytest.mark.slow
@pytest.mark.parametrize("num_updates", [1, 3])
def test_a_learner_in_two_parts_is_the_whole_one(num_updates):
    """Two programs in place of one: to rounding."""
    made, key, axis = learner(updates_per_step=num_updates), random.key(5), Axis()
    streams = rollout.start(made.actor, ENV, KEY)
    state = made.init(KEY, streams.step)
    _, unroll, _ = rollout.unroll(
        made.actor, ENV, made.params(state), streams, KEY, LENGTH
    )
    data, kept = made.start(unroll), made.kept
    for _ in range(3):
        whole = jax.jit(made.learn, static_argnums=4)(state, data, unroll, key, axis)
        added = jax.jit(kept.add, static_argnums=3)(state, data, unroll, axis)
        parts = jax.jit(kept.learn, static_argnums=3)(*added, key, axis)
        assert_near(parts, whole)
        state, data, _ = whole
    assert bool(kept.ready(data))
    assert int(state.opt_state[0].count) == 2 * num_updates


def test_a_learner_that_keeps_nothing_is_refused():
    net = actor_critic(*ENV.specs, NetworkConfig(widths=(8,)))
    with pytest.raises(RefusedError, match="schedule must be free or lockstep here"):
        threads(a2c(net, optax.adam(0.01)), make_env, LENGTH, decoupled(), data_mesh(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_lag": 1}, "decoupled has pace.run_ahead"),
        ({"num_distillers": 1}, "num_distillers must be 0"),
        ({"lag": 2}, "lag is for the lockstep schedule"),
        ({"publish_interval": 0}, "publish_interval must be at least 1"),
        ({"ratio": 0.5, "run_ahead": 1}, "run_ahead must be at least 3, got 1"),
    ],
)
def test_what_would_stop_or_mean_nothing_is_refused(options, message):
    with pytest.raises(RefusedError, match=message):
        bridge = engine(decoupled(**options))
        try:
            bridge.init(KEY)
        finally:
            bridge.close()
