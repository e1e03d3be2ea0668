"""Gradients that other processes compute are those that threads compute."""

import os
import signal

import fleets
import jax
import optax
import pytest
from fleets import LENGTH, NUM_ENVS, advanced, kill_actor, learner_hash, whole_hash

from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.envs.host import from_pure
from jaxrl_par.fleet.cluster import LostError
from jaxrl_par.loops import replayed
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.replay import uniform
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.fleet import FleetConfig, fleet_of_workers
from jaxrl_par.topologies.workers import WorkersConfig, repeat_recorded

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster", "declared")]


@pytest.fixture(scope="module")
def cluster():
    with fleets.started() as there:
        yield there


def make_env(key):
    return from_pure(fleets.ENV, key)


def learner():
    config = NetworkConfig(widths=(8,))
    specs = fleets.ENV.observation_spec, fleets.ENV.action_spec
    return a2c(fleets.actor_critic(*specs, config), optax.rmsprop(0.01))


def engine(env, config, what=None):
    where = FleetConfig(object_store_mb=200)
    return fleet_of_workers(what or learner(), env, LENGTH, config, fleet=where)


def test_one_worker_is_the_compiled_program():
    """Simulators; for a pure environment `test_fleet_ends` has the same."""
    ours = advanced(engine(make_env, WorkersConfig(1)), 6)
    program = compiled(learner(), fleets.ENV, LENGTH)
    run, step = jax.jit(program.init)(fleets.KEY), jax.jit(program.step)
    for _ in range(6):
        run, _ = step(run)
    assert learner_hash(ours) == learner_hash(run)


@pytest.mark.parametrize(
    "config", [WorkersConfig(2), WorkersConfig(2, "server", num_shards=2)]
)
def test_a_recorded_run_is_repeated_in_one_thread(config, tmp_path):
    bridge = engine(make_env, config)
    bridge.record(tmp_path / "schedule.jsonl")
    ours = advanced(bridge, 12)
    record = tmp_path / "schedule.jsonl"
    again = advanced(repeat_recorded(learner(), make_env, LENGTH, config, record), 12)
    assert whole_hash(ours) == whole_hash(again)


def test_what_a_worker_keeps_comes_with_a_run_that_is_saved():
    """Its replay stays in its process until then: bit for bit that of one thread, from
    which another fleet goes on."""
    keeping = replayed(learner(), uniform(4 * NUM_ENVS, 2, min_size=2))
    whole = advanced(engine(make_env, WorkersConfig(1), keeping), 8)
    program = compiled(keeping, fleets.ENV, LENGTH)
    run, step = jax.jit(program.init)(fleets.KEY), jax.jit(program.step)
    for _ in range(8):
        run, _ = step(run)
    (worker,) = whole.local.workers
    assert whole_hash(run._replace(local=())) == learner_hash(whole)
    data = run.local.data if hasattr(run.local, "data") else run.local[-1]
    assert whole_hash(run._replace(local=worker.data)) == whole_hash(
        run._replace(local=data)
    )
    half = advanced(engine(make_env, WorkersConfig(1), keeping), 4)
    other = engine(make_env, WorkersConfig(1), keeping)
    try:
        other.init(fleets.KEY)
        other.resume(half)
        run, _ = other.advance(half, 4)
    finally:
        other.close()
    assert whole_hash(run) == whole_hash(whole)


@pytest.mark.parametrize("store", ["lock", "server"])
def test_a_worker_that_is_killed_costs_its_gradient(store, tmp_path):
    limits = SupervisionConfig(on_error="restart")
    number = 3 if store == "server" else 1
    config = WorkersConfig(2, store, number, supervision=limits)
    bridge = engine(make_env, config)
    bridge.record(tmp_path / "schedule.jsonl")
    with pytest.warns(UserWarning, match="anew after LostError: worker 0, process"):
        ours = advanced(bridge, 600, kill_actor)
    assert bridge.report().restarts == 1
    record = tmp_path / "schedule.jsonl"
    again = advanced(repeat_recorded(learner(), make_env, LENGTH, config, record), 600)
    assert learner_hash(ours) == learner_hash(again)


def test_a_worker_that_is_killed_ends_the_run_where_errors_do():
    with pytest.raises(LostError, match="worker 0, process"):
        advanced(engine(make_env, WorkersConfig(1)), 8, kill_actor)


def test_shards_have_processes_and_one_that_is_killed_ends_the_run():
    """What it had is nowhere else."""
    bridge, pids = engine(make_env, WorkersConfig(2, "server", 2)), []

    def kill_shard(bridge):
        pids.extend(lease.pid for lease in bridge._store._leases)
        pids.extend(fleets.processes(bridge))
        os.kill(pids[1], signal.SIGKILL)

    with pytest.raises(LostError, match=r"shard 1, process \d+ on .* is lost"):
        advanced(bridge, 600, kill_shard)
    assert len(set(pids)) == 4
    assert bridge.rescue() is None


def test_a_run_of_shards_goes_on_where_it_was_left():
    config = WorkersConfig(1, "server", 2)
    whole = advanced(engine(make_env, config), 8)
    half = advanced(engine(make_env, config), 4)
    other = engine(make_env, config)
    try:
        other.init(fleets.KEY)
        other.resume(half)
        run, _ = other.advance(half, 4)
    finally:
        other.close()
    assert whole_hash(run) == whole_hash(whole)
