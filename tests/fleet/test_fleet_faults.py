"""What dies or hangs in a fleet costs what was in progress there, and nothing else."""

import json
import time
from dataclasses import replace

import fleets
import jax
import numpy as np
import pytest
from fleets import (
    LENGTH,
    NUM_ENVS,
    advanced,
    fleet_engine,
    free,
    is_alive,
    kill_actor,
    kill_holder,
    learner_hash,
    lockstep,
    processes,
    repeated,
    stop_actor,
    threads_engine,
    whole_hash,
)

from jaxrl_par.bridge.supervision import HangError
from jaxrl_par.envs.host import from_pure
from jaxrl_par.fleet.arrays import own, own_on
from jaxrl_par.fleet.cluster import Call, LostError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
ROWS = NUM_ENVS * LENGTH


@pytest.fixture(scope="module")
def cluster():
    with fleets.started() as there:
        yield there


def test_an_actor_that_is_killed_is_counted_and_what_it_learned_is_repeated(tmp_path):
    """Its environments are made anew, with another key, which the record knows."""
    # With a bound on the lag, as then nobody goes on for long without the other.
    config = replace(free(on_error="restart"), max_lag=1)
    engine = fleet_engine(config)
    engine.record(tmp_path / "schedule.jsonl")
    with pytest.warns(UserWarning, match="anew after LostError: actor 0, process"):
        ours = advanced(engine, 16, kill_actor)
    report = engine.report()
    assert report.restarts == 1 and report.dropped_rows >= ROWS
    lines = (tmp_path / "schedule.jsonl").read_text().splitlines()
    entries = [tuple(x) for line in lines for x in json.loads(line)]
    assert len({x[:3] for x in entries}) == len(entries) == 32
    assert {x[2] for x in entries if x[0] == 0} == {0, 1}
    again = advanced(repeated(config, tmp_path / "schedule.jsonl"), 16)
    assert learner_hash(ours) == learner_hash(again)


def test_an_actor_that_is_killed_ends_the_run_where_errors_do():
    engine = fleet_engine(lockstep())
    with pytest.raises(LostError, match=r"actor 0, process \d+ on .* is lost") as told:
        advanced(engine, 8, kill_actor)
    assert "in actor 0, counter, unroll" in told.value.__notes__[0]


def test_two_actors_are_lost_with_their_process():
    engine = fleet_engine(lockstep(on_error="restart"), threads_per_process=2)
    with pytest.warns(UserWarning, match="actors 0-1, process"):
        run = advanced(engine, 12, kill_actor)
    assert engine.report().restarts == 2
    assert [int(x.generation) for x in run.local.actors] == [1, 1]


def test_another_holder_has_the_same_parameters():
    """Nothing is lost with the first: bit for bit the run without a fault."""
    engine = fleet_engine(lockstep(on_error="restart"))
    with pytest.warns(UserWarning, match="made a new holder of the parameters"):
        ours = advanced(engine, 12, kill_holder)
    assert engine.report().restarts == 1
    theirs = advanced(threads_engine(lockstep()), 12)
    assert whole_hash(ours) == whole_hash(theirs)


def test_a_holder_that_is_lost_ends_the_run_where_errors_do():
    with pytest.raises(LostError, match="the parameters cannot be had"):
        advanced(fleet_engine(lockstep()), 8, kill_holder)


@pytest.mark.parametrize("on_error", ["raise", "restart"])
def test_a_process_that_stands_still_is_a_hang(on_error):
    """It answers nothing, not even how far it is."""
    stopped = []

    def disturb(engine):
        stopped.extend(processes(engine)[:1])
        stop_actor(engine)

    engine = fleet_engine(lockstep(on_error=on_error, env_timeout=3.0))
    if on_error == "raise":
        with pytest.raises(HangError, match=r"actor 0: .* has not returned for 3 s"):
            advanced(engine, 12, disturb)
    else:
        with pytest.warns(UserWarning, match="anew after HangError"):
            run = advanced(engine, 12, disturb)
        assert [int(x.generation) for x in run.local.actors] == [1, 0]
        report = engine.report()
        assert report.restarts == 1 and not report.abandoned
    deadline = time.monotonic() + 60  # Ray sends a signal first
    while any(map(is_alive, stopped)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_alive, stopped))


def failing(how):
    """Makes environments of which actor 1's do something in step 13, the first ones."""

    env_key = jax.random.fold_in(jax.random.split(fleets.KEY, 3)[1], 1)
    actor_1 = jax.random.key_data(env_key).tolist()

    def make(key):
        env = from_pure(fleets.ENV, key)
        step, steps = env.step, []
        first = jax.random.key_data(key).tolist() == actor_1

        def disturbed(action):
            steps.append(0)
            if first and len(steps) == 13:
                how()
            return step(action)

        env.step = disturbed
        return env

    return make


def test_an_error_of_a_simulator_comes_back_as_it_was():
    def how():
        raise ZeroDivisionError("the arm is broken")

    with pytest.raises(ZeroDivisionError, match="the arm is broken") as told:
        advanced(fleet_engine(lockstep(), failing(how)), 8)
    notes = "\n".join(told.value.__notes__)
    assert "step 12 (row 2 of unroll 2), generation 0" in notes
    assert "in actor 1, process" in notes and "the arm is broken" in notes


def test_an_error_of_a_simulator_costs_the_rows_of_its_unroll():
    def how():
        raise ZeroDivisionError("the arm is broken")

    engine = fleet_engine(lockstep(on_error="restart"), failing(how))
    with pytest.warns(UserWarning, match="actor 1: made its environments anew"):
        run = advanced(engine, 8)
    assert [int(x.generation) for x in run.local.actors] == [0, 1]
    report = engine.report()
    done = sum(report.lags.values())
    acted = sum(member.rows for member in engine._pool)
    assert report.restarts == 1
    assert report.dropped_rows == acted - done
    # Two rows of the unroll that failed, and what was acted ahead and not learned.
    assert report.dropped_rows % ROWS == 2 * NUM_ENVS


def test_a_simulator_that_hangs_is_replaced():
    def how():
        time.sleep(1000)

    config = lockstep(on_error="restart", env_timeout=2.0)
    engine = fleet_engine(config, failing(how))
    with pytest.warns(UserWarning, match="HangError: actor 1: step has not returned"):
        run = advanced(engine, 8)
    assert [int(x.generation) for x in run.local.actors] == [0, 1]


def test_what_comes_from_the_object_store_is_copied_before_jax_has_it(cluster):
    """Aligned to 64 bytes, JAX would take it as it is: TRAP F7."""
    reference = cluster.put({"x": np.ones(4096, np.float32)})
    ones = Call(reference).result()
    address = ones["x"].ctypes.data
    assert address % 64 == 0 and not ones["x"].flags.writeable
    on_device = own_on(jax.devices()[0], ones)["x"]
    kept = own(ones)["x"]
    assert on_device.unsafe_buffer_pointer() != address
    assert kept.ctypes.data != address and kept.flags.writeable
