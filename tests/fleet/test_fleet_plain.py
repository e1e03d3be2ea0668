"""Processes of a fleet that import no JAX, and what they act."""

import fleets
import optax
import plain_simulators
import pytest
from fleets import KEY, advanced, whole_hash

from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.bridge.actor_learner.config import ThreadsConfig
from jaxrl_par.envs.host import Seeded
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.topologies.fleet import fleet
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import repeat_recorded, threads

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
LENGTH = 8
NETWORK = NetworkConfig(widths=(8,), memory="lstm", memory_width=8)


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("gymnasium")
    with fleets.started() as there:
        yield there


def parts(make, **config):
    """Its processes are watched, or here, where there is JAX, they are not."""
    make_env = Seeded(make)
    env = Seeded(plain_simulators.cartpole)(KEY)
    network = actor_critic(*env.specs, NETWORK)
    env.close()
    learner = impala(network, optax.adam(0.01), ImpalaConfig(behaviour_cost=0.1))
    given = ThreadsConfig(num_actors=2, act_with="numpy", **config)
    return learner, make_env, LENGTH, given, data_mesh(1)


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("together", [1, 2])
def test_lockstep_without_jax_is_that_of_threads_bit_for_bit(lag, together):
    """Each step asserts that nobody has imported JAX there."""
    config = {"schedule": "lockstep", "lag": lag}
    where = fleets.FleetConfig(object_store_mb=200, threads_per_process=together)
    ours = advanced(fleet(*parts(plain_simulators.watched, **config), fleet=where), 8)
    theirs = advanced(threads(*parts(plain_simulators.cartpole, **config)), 8)
    assert whole_hash(ours) == whole_hash(theirs)


def test_a_recorded_free_run_without_jax_is_repeated_in_one_thread(tmp_path):
    given = parts(plain_simulators.watched, max_lag=1)
    engine = fleet(*given, fleet=fleets.FLEET)
    engine.record(tmp_path / "schedule.jsonl")
    ours = advanced(engine, 12)
    given = parts(plain_simulators.cartpole, max_lag=1)
    again = advanced(repeat_recorded(*given, tmp_path / "schedule.jsonl"), 12)
    both = (x._replace(local=x.local.actors) for x in (ours, again))
    assert len({whole_hash(x) for x in both}) == 1


def test_the_watch_finds_jax_where_it_is():
    """Otherwise the above would say nothing."""
    env = plain_simulators.watched(0)
    env.reset()
    with pytest.raises(AssertionError, match="jax, jaxlib"):
        env.step(parts(plain_simulators.cartpole)[1](KEY).action_spec and [0, 0])


def test_a_process_that_is_killed_is_replaced_by_one_without_jax():
    limits = fleets.SupervisionConfig(on_error="restart", env_timeout=20.0)
    config = {"schedule": "lockstep", "supervision": limits}
    given = parts(plain_simulators.watched, **config)
    engine = fleet(*given, fleet=fleets.FLEET)
    with pytest.warns(UserWarning, match="made its environments anew"):
        run = advanced(engine, 12, fleets.kill_actor)
    assert int(run.progress.updates) == 12 and engine.report().restarts == 1
