"""Members that play in other processes are those that play in threads."""

import fleets
import jax
import optax
import pytest
from fleets import KEY, advanced, kill_actor, kill_holder, whole_hash

from jaxrl_par.algorithms.es import ESConfig, es
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.envs.host import from_pure
from jaxrl_par.fleet.cluster import LostError
from jaxrl_par.loops import evolution
from jaxrl_par.networks import NetworkConfig, policy_network
from jaxrl_par.perturbations import NoiseConfig
from jaxrl_par.testing import probes
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.topologies.fleet import FleetConfig, fleet_of_evaluators
from jaxrl_par.topologies.generations import (
    GenerationsConfig,
    PartsConfig,
    generations,
    repeat_recorded,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster", "declared")]
ENV, NOISE, MEMBERS, STEPS = probes.memory(1), NoiseConfig(0.1), 8, 9


@pytest.fixture(scope="module")
def cluster():
    with fleets.started() as there:
        yield there


def agent():
    network = policy_network(*ENV.specs, NetworkConfig(widths=(4,)))
    config = ESConfig(policy="sampled")
    return normalize_observations(es(network, optax.sgd(0.1), config))


def config_of(num_parts=None, quorum=None, **supervision):
    parts = PartsConfig(num_parts, quorum)
    return GenerationsConfig(2, parts, SupervisionConfig(**supervision))


def in_fleet(config, env=ENV, **settings):
    where = FleetConfig(**({"object_store_mb": 100} | settings))
    given = agent(), env, NOISE, MEMBERS, STEPS, config
    return fleet_of_evaluators(*given, cap_factor=2.0, fleet=where)


def in_threads(config, env=ENV):
    given = agent(), env, NOISE, MEMBERS, STEPS, config
    return generations(*given, cap_factor=2.0)


def simulators(key):
    return from_pure(ENV, key)


def test_one_part_is_the_compiled_program():
    given = agent(), ENV, NOISE, MEMBERS, STEPS
    program = evolution(*given, cap_factor=2.0)
    theirs, _ = jax.jit(scanned(program, 6))(jax.jit(program.init)(KEY))
    assert whole_hash(advanced(in_fleet(config_of(1)), 6)) == whole_hash(theirs)


@pytest.mark.parametrize("env", [ENV, simulators], ids=["pure", "simulators"])
def test_parts_in_processes_are_parts_in_threads(env):
    ours = advanced(in_fleet(config_of(4), env, threads_per_process=2), 6)
    assert whole_hash(ours) == whole_hash(advanced(in_threads(config_of(4)), 6))


def test_a_process_that_is_killed_in_mid_generation_costs_nothing():
    """Its part is played again: bit for bit the run without a fault."""
    engine = in_fleet(config_of(4, on_error="restart"))
    with pytest.warns(UserWarning, match="anew after LostError: worker 0, process"):
        ours = advanced(engine, 200, kill_actor)
    assert engine.report().restarts == 1
    assert whole_hash(ours) == whole_hash(advanced(in_threads(config_of(4)), 200))


def test_a_process_that_is_killed_ends_the_run_where_errors_do():
    with pytest.raises(LostError, match="worker 0, process"):
        advanced(in_fleet(config_of(4)), 200, kill_actor)


def test_another_holder_has_the_parameters_of_the_generation():
    engine = in_fleet(config_of(4, on_error="restart"))
    with pytest.warns(UserWarning, match="made a new holder of the parameters"):
        ours = advanced(engine, 20, kill_holder)
    assert engine.report().restarts == 1
    assert whole_hash(ours) == whole_hash(advanced(in_threads(config_of(4)), 20))


def test_a_recorded_run_with_a_quorum_is_repeated_in_one_thread(tmp_path):
    config = config_of(4, quorum=3)
    engine = in_fleet(config)
    engine.record(tmp_path / "schedule.jsonl")
    ours = advanced(engine, 40)
    report = engine.report()
    assert report.lags == {0: 120} and not report.restarts
    given = agent(), ENV, NOISE, MEMBERS, STEPS, config
    record = tmp_path / "schedule.jsonl"
    again = advanced(repeat_recorded(*given, record, cap_factor=2.0), 40)
    assert whole_hash(ours) == whole_hash(again)
