"""Environments in processes, which hold no network: who acts is beside the learner."""

import json
from dataclasses import replace

import fleets
import jax
import optax
import plain_simulators
import pytest
from fleets import (
    ENV,
    KEY,
    LENGTH,
    NUM_ENVS,
    advanced,
    fleet_engine,
    kill_actor,
    learner_hash,
    lockstep,
    repeated,
    stop_actor,
    threads_engine,
    whole_hash,
)

from jaxrl_par.algorithms.impala import impala
from jaxrl_par.bridge.central.config import CentralConfig
from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.envs.host import Seeded
from jaxrl_par.fleet.cluster import LostError
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.threads import ThreadsConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster", "declared")]
ROWS = NUM_ENVS * LENGTH


@pytest.fixture(scope="module")
def cluster():
    with fleets.started() as there:
        yield there


def central(config, **options):
    return replace(config, inference="central", central=CentralConfig(**options))


def seeded(make):
    """What makes simulators, and who learns in them."""
    env = Seeded(plain_simulators.cartpole)(KEY)
    network = actor_critic(
        *env.specs, NetworkConfig(widths=(8,), memory="lstm", memory_width=8)
    )
    env.close()
    return {"make": Seeded(make), "learner": impala(network, optax.adam(0.01))}


@pytest.mark.parametrize("lag", [0, 1])
def test_lockstep_is_that_of_threads(lag):
    """Bit for bit, with all that actors keep, their environments among it."""
    config = central(lockstep(2, lag))
    ours = advanced(fleet_engine(config), 8)
    theirs = advanced(threads_engine(config), 8)
    assert whole_hash(ours) == whole_hash(theirs)


def test_rows_apart_are_those_of_local_inference():
    """In the shape of local inference, and so in its bits."""
    engine = fleet_engine(central(lockstep(2), rows="apart"), threads_per_process=2)
    ours, theirs = advanced(engine, 8), advanced(threads_engine(lockstep(2)), 8)
    assert learner_hash(ours) == learner_hash(theirs)


def test_one_actor_without_lag_is_the_compiled_program():
    ours = advanced(fleet_engine(central(lockstep(1, 0))), 6)
    program = compiled(fleets.agent(), ENV, LENGTH)
    run, step = jax.jit(program.init)(KEY), jax.jit(program.step)
    for _ in range(6):
        run, _ = step(run)
    assert learner_hash(ours) == learner_hash(run)


def test_processes_of_simulators_import_no_jax():
    """Each step asserts that nobody has; the numbers are those of threads."""
    pytest.importorskip("gymnasium")
    config = central(lockstep(2))
    ours = advanced(fleet_engine(config, **seeded(plain_simulators.watched)), 8)
    theirs = advanced(threads_engine(config, **seeded(plain_simulators.cartpole)), 8)
    assert whole_hash(ours) == whole_hash(theirs)


def test_a_recorded_free_run_is_repeated_in_one_thread(tmp_path):
    """Also where versions change within an unroll; the report tells of batches."""
    config = central(ThreadsConfig(num_actors=2, max_lag=1))
    engine = fleet_engine(config)
    engine.record(tmp_path / "schedule.jsonl")
    ours = advanced(engine, 12)
    again = advanced(repeated(config, tmp_path / "schedule.jsonl"), 12)
    assert learner_hash(ours) == learner_hash(again)
    row = engine.report().row()
    assert 1 <= row["inference_batch"] <= 2
    assert row["inference_fill"] == row["inference_batch"] / 2
    assert 0 < row["inference_wait_ms"] <= row["inference_wait_ms_max"]
    assert engine.report().actors[0]["transport"] > 0


def test_a_process_that_dies_costs_half_an_unroll_and_its_memory(tmp_path):
    """Environments and memory are made anew, as who repeats the record makes them."""
    limits = SupervisionConfig(on_error="restart")
    config = central(ThreadsConfig(num_actors=2, max_lag=1, supervision=limits))
    engine = fleet_engine(config)
    engine.record(tmp_path / "schedule.jsonl")
    with pytest.warns(UserWarning, match="anew after LostError: actor 0, process"):
        ours = advanced(engine, 16, kill_actor)
    report = engine.report()
    acted = sum(member.rows for member in engine._pool)
    assert report.restarts == 1
    assert report.dropped_rows == acted - sum(report.lags.values())
    lines = (tmp_path / "schedule.jsonl").read_text().splitlines()
    entries = [tuple(x[:3]) for line in lines for x in json.loads(line)]
    assert len(set(entries)) == len(entries) == 32
    assert {x[2] for x in entries if x[0] == 0} == {0, 1}
    again = advanced(repeated(config, tmp_path / "schedule.jsonl"), 16)
    assert learner_hash(ours) == learner_hash(again)


def test_a_process_that_dies_ends_the_run_where_errors_do():
    with pytest.raises(LostError, match=r"actor 0, process \d+ on .* is lost"):
        advanced(fleet_engine(central(lockstep())), 8, kill_actor)


def test_a_process_that_stands_still_is_replaced():
    config = central(lockstep(on_error="restart", env_timeout=3.0))
    engine = fleet_engine(config)
    with pytest.warns(UserWarning, match="anew after HangError"):
        run = advanced(engine, 12, stop_actor)
    assert [int(x.generation) for x in run.local.actors] == [1, 0]
    assert engine.report().restarts == 1


def test_a_run_goes_on_in_another_fleet_where_it_was_left():
    config = central(lockstep(2))
    whole = advanced(fleet_engine(config), 8)
    half = advanced(fleet_engine(config), 4)
    other = fleet_engine(config)
    try:
        other.init(KEY)
        other.resume(half)
        run, _ = other.advance(half, 4)
    finally:
        other.close()
    assert whole_hash(run) == whole_hash(whole)
