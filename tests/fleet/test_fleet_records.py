"""What a fleet recorded is repeated in one process, in each way that there is."""

import warnings

import fleets
import jax
import plain_simulators
import pytest
from fleets import ENV, KEY, LENGTH, advanced, fleet_engine, learner_hash, repeated

from jaxrl_par.bridge.actor_learner.config import ThreadsConfig
from jaxrl_par.envs.host import Seeded
from jaxrl_par.loops import records, rounds
from jaxrl_par.topologies.quorum import quorum
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import repeat_kept

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]


@pytest.fixture(scope="module")
def cluster():
    with fleets.started() as there:
        yield there


@pytest.fixture(autouse=True)
def starving():
    """Whether somebody is too slow to be learned from is the machine's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "nothing of actor")
        yield


def test_a_fleet_with_a_quorum_is_repeated_in_one_thread_and_in_one_program(tmp_path):
    path = tmp_path / "schedule.jsonl"
    config = ThreadsConfig(3, "lockstep", 1, quorum=2, max_lag=1)
    engine = fleet_engine(config)
    engine.record(path)
    ours = advanced(engine, 12)
    assert learner_hash(advanced(repeated(config, path), 12)) == learner_hash(ours)
    found = rounds.recorded(records.read(path), 3, 2)
    program = quorum(fleets.agent(), ENV, LENGTH, found, num_workers=3)
    run, step = jax.jit(program.init)(KEY), jax.jit(program.step)
    for _ in range(12):
        run, _ = step(run)
    assert learner_hash(run) == learner_hash(ours)


def test_unrolls_of_a_fleet_that_were_kept_need_no_simulators(tmp_path):
    pytest.importorskip("gymnasium")
    path = tmp_path / "schedule.jsonl"
    make = Seeded(plain_simulators.cartpole)
    env = make(KEY)
    network = fleets.actor_critic(*env.specs)
    env.close()
    learner = fleets.impala(network, fleets.optax.adam(0.01))
    config = ThreadsConfig(2, keep_unrolls=True)
    engine = fleet_engine(config, make, learner)
    engine.record(path)
    ours = advanced(engine, 8)
    again = advanced(repeat_kept(learner, LENGTH, config, data_mesh(1), path), 8)
    assert learner_hash(ours) == learner_hash(again)
