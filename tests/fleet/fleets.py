"""Small fleets, and what is done to them."""

import inspect
import io
import os
import signal
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import optax
import pytest

from jaxrl_par import random
from jaxrl_par.algorithms.impala import impala
from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.envs.host import from_pure
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.fleet import connection, recipe
from jaxrl_par.fleet.cluster import Cluster
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import probes
from jaxrl_par.topologies.fleet import FleetConfig, fleet
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, repeat_recorded, threads
from jaxrl_par.training.checkpoints import state_hash

NUM_ENVS, LENGTH = 2, 5
KEY = random.key(7)
FLEET = FleetConfig(object_store_mb=200)
ENV = previous_action_and_reward(probes.counter(NUM_ENVS))


@contextmanager
def started():
    """One for several tests: it takes seconds to come."""
    there = Cluster(FLEET, cpus=4.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "cloudpickle", SimpleNamespace(dumps=unchecked))
        try:
            yield there
        finally:
            there.close()


def unchecked(value: Any) -> bytes:
    """Pickled without the checks of types that only tests have: they cannot be sent."""
    from ray.cloudpickle import CloudPickler

    class Pickler(CloudPickler):
        def reducer_override(self, obj):
            if isinstance(obj, FunctionType) and obj.__module__.startswith("jaxrl_par"):
                obj = inspect.unwrap(obj) if "<locals>" in obj.__qualname__ else obj
            return super().reducer_override(obj)

    file = io.BytesIO()
    Pickler(file).dump(value)
    return file.getvalue()


def make_env(key):
    return from_pure(ENV, key)


def agent(memory="lstm"):
    config = NetworkConfig(widths=(8,), memory=memory, memory_width=8)
    network = actor_critic(ENV.observation_spec, ENV.action_spec, config)
    return impala(network, optax.adam(0.03))


def lockstep(num_actors=2, lag=1, **supervision):
    limits = SupervisionConfig(**supervision)
    return ThreadsConfig(num_actors, "lockstep", lag, supervision=limits)


def free(num_actors=2, **supervision):
    return ThreadsConfig(num_actors, supervision=SupervisionConfig(**supervision))


def fleet_engine(config, make=make_env, learner=None, **settings):
    settings = {"object_store_mb": FLEET.object_store_mb} | settings
    learner = learner or agent()
    where = FleetConfig(**settings)
    return fleet(learner, make, LENGTH, config, data_mesh(1), fleet=where)


def threads_engine(config, make=make_env, learner=None):
    return threads(learner or agent(), make, LENGTH, config, data_mesh(1))


def repeated(config, record: Path, make=make_env, learner=None):
    mesh = data_mesh(1)
    return repeat_recorded(learner or agent(), make, LENGTH, config, mesh, record)


def advanced(engine, num_updates: int, disturb: Callable = lambda _: None) -> Any:
    """The run after so many updates; it is disturbed after four."""
    done = 0
    try:
        run = engine.init(KEY)
        while done < num_updates:
            count = min(4, num_updates - done)
            run, _ = engine.advance(run, count)
            if not done:
                disturb(engine)
            done += count
    finally:
        engine.close()
    return run


def whole_hash(run) -> str:
    return state_hash(run)


def learner_hash(run) -> str:
    """Of all but what actors keep for themselves."""
    return state_hash(run._replace(local=()))


def processes(engine) -> list[int]:
    members = [getattr(member, "_seat", member) for member in engine._pool]
    return [member._lease.pid for member in members]


def kill_actor(engine) -> None:
    os.kill(processes(engine)[0], signal.SIGKILL)


def stop_actor(engine) -> None:
    """It lives, and does nothing any more."""
    os.kill(processes(engine)[0], signal.SIGSTOP)


def kill_holder(engine) -> None:
    engine._system.published._handle.kill()


def is_alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def folder() -> str:
    """Where the cluster of this process has its files."""
    return connection.CONNECTION._folder or ""
