"""What is done in other processes is what threads do."""

import fleets
import jax
import numpy as np
import pytest
from fleets import (
    advanced,
    fleet_engine,
    free,
    learner_hash,
    lockstep,
    repeated,
    threads_engine,
    whole_hash,
)

from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.bridge.actor_learner.config import ThreadsConfig
from jaxrl_par.envs.host import from_callable
from jaxrl_par.topologies.compiled import compiled

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster", "declared")]


@pytest.fixture(scope="module")
def cluster():
    with fleets.started() as there:
        yield there


@pytest.mark.parametrize("lag", [0, 1])
def test_lockstep_is_that_of_threads(lag):
    """Bit for bit, with all that actors keep."""
    ours = advanced(fleet_engine(lockstep(2, lag)), 8)
    theirs = advanced(threads_engine(lockstep(2, lag)), 8)
    assert whole_hash(ours) == whole_hash(theirs)


def test_two_actors_in_one_process_are_two_in_threads():
    """Statistics of observations among what is learned: they come back as part of the
    parameters, and only the learner adds to them."""
    learner = normalize_observations(fleets.agent("none"))
    engine = fleet_engine(lockstep(2), learner=learner, threads_per_process=2)
    ours = advanced(engine, 8)
    theirs = advanced(threads_engine(lockstep(2), learner=learner), 8)
    assert whole_hash(ours) == whole_hash(theirs)


def test_one_actor_without_lag_is_the_compiled_program():
    ours = advanced(fleet_engine(lockstep(1, 0)), 6)
    program = compiled(fleets.agent(), fleets.ENV, fleets.LENGTH)
    run, step = jax.jit(program.init)(fleets.KEY), jax.jit(program.step)
    for _ in range(6):
        run, _ = step(run)
    assert learner_hash(ours) == learner_hash(run)


def test_a_recorded_free_run_is_repeated_in_one_thread(tmp_path):
    config = ThreadsConfig(num_actors=2, max_lag=1)
    engine = fleet_engine(config)
    engine.record(tmp_path / "schedule.jsonl")
    ours = advanced(engine, 12)
    again = advanced(repeated(config, tmp_path / "schedule.jsonl"), 12)
    assert whole_hash(ours._replace(local=ours.local.actors)) == whole_hash(
        again._replace(local=again.local.actors)
    )


def test_a_run_goes_on_in_another_fleet_where_it_was_left():
    whole = advanced(fleet_engine(lockstep(2)), 8)
    engine = fleet_engine(lockstep(2))
    half = advanced(engine, 4)
    other = fleet_engine(lockstep(2))
    try:
        other.init(fleets.KEY)
        other.resume(half)
        run, _ = other.advance(half, 4)
    finally:
        other.close()
    assert whole_hash(run) == whole_hash(whole)


def test_what_makes_simulators_may_be_a_function_of_a_function():
    """Sent as a whole, with what it closes over, and a class that has no module."""
    gymnasium = pytest.importorskip("gymnasium")
    limit = 9

    def make(key):
        class Short(gymnasium.Wrapper):
            steps = 0

            def reset(self, **options):
                self.steps = 0
                return self.env.reset(**options)

            def step(self, action):
                self.steps += 1
                *told, cut, info = self.env.step(action)
                return *told, cut or self.steps >= limit, info

        seed = int(jax.random.bits(key)) >> 1
        return from_callable(lambda: Short(gymnasium.make("CartPole-v1")), 2, seed)

    env = make(fleets.KEY)
    network = fleets.actor_critic(env.observation_spec, env.action_spec)
    env.close()
    learner = fleets.impala(network, fleets.optax.adam(0.01))
    engine = fleet_engine(free(2), make, learner)
    try:
        run, metrics = engine.advance(engine.init(fleets.KEY), 8)
    finally:
        engine.close()
    length = metrics["episode_length"]
    assert np.sum(length.total) <= limit * np.sum(length.count)
    assert int(run.progress.updates) == 8
    report = engine.report()
    rows = sum(report.lags.values()) + report.dropped_rows
    assert rows == sum(member.rows for member in engine._pool)
    assert "transport" in report.actors[0]
