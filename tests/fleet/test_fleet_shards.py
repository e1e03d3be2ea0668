"""Shards in processes, which are here in none: they do what a server's threads do."""

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_workers import ADDS, SIZE, Toy

from jaxrl_par import random
from jaxrl_par.bridge.parameter_server.shards import Shards
from jaxrl_par.bridge.parameter_server.stores import Push, Server
from jaxrl_par.bridge.parameter_server.stores.store import applied
from jaxrl_par.bridge.reports import Times
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.fleet.arrays import on_host
from jaxrl_par.fleet.cluster import Call, Handle
from jaxrl_par.fleet.processes import Lease
from jaxrl_par.fleet.shard_store import FarServer
from jaxrl_par.fleet.shards import HeldShard, as_sent
from jaxrl_par.fleet.system import FleetWorkers
from jaxrl_par.loops import Gradient
from jaxrl_par.loops.asynchronous import StalenessConfig

pytestmark = pytest.mark.usefixtures("declared")

ZEROS = Toy(jnp.zeros(SIZE), jnp.zeros(SIZE), jnp.int32(0))
SIZES = as_sent(ZEROS)
MADE_FROM = ADDS.apply, SIZES, SIZES.params, 2, StalenessConfig("scale")
SHARDS = Shards(*MADE_FROM)
GRADS = [jnp.arange(SIZE, dtype=jnp.float32) + x for x in range(3)]


def given(grads):
    return Gradient(grads, {}, np.int32(5), np.bool_(True), np.bool_(False))


def held(index=0):
    part = on_host(SHARDS.split(ZEROS)[index])
    return HeldShard(random.key(0), MADE_FROM, part)


def test_a_shard_applies_what_was_left_with_it_once():
    shard, part = held(), SHARDS.divide(given(GRADS[1]))[0]
    shard.leave(5, 7, on_host(part))
    metrics, used = shard.apply(5, 7, 2)
    expected = applied(SHARDS, SHARDS.split(ZEROS)[0], part, 2)
    read = shard.read()
    jax.tree.map(np.testing.assert_array_equal, read.state, on_host(expected.state))
    assert used and (read.pushes, read.version) == (1, 1)
    assert metrics == expected.metrics and metrics["lag"] == 2
    with pytest.raises(RuntimeError, match="its gradient of None was left"):
        shard.apply(5, 7, 0)
    shard.leave(5, 8, on_host(part))
    with pytest.raises(RuntimeError, match="and its gradient of 8 was left"):
        shard.apply(5, 7, 0)
    assert shard.read().pushes == 1


class Answered(Call):
    def __init__(self, answer: Any):
        self.answer = answer

    def ready(self, seconds: float) -> bool:
        return True

    def result(self) -> Any:
        return self.answer


class Near(Handle):
    """A process that is none."""

    def __init__(self, shard: HeldShard):
        self.shard = shard

    def call(self, method: str, *arguments: Any, group: str | None = None) -> Answered:
        return Answered(getattr(self.shard, method)(*arguments))


class System(FleetWorkers):
    def __init__(self):
        self.parts: Any = SimpleNamespace(device=jax.devices("cpu")[0])
        self.shards_held = [held(0), held(1)]

    def started_shards(self, state, parts, check):
        return [Lease(Near(x), 0, "here", 1) for x in self.shards_held]


@contextmanager
def at_work(make):
    supervisor = Supervisor(20.0)
    store = make(supervisor, SHARDS, ZEROS)
    try:
        store.start()
        yield store
    finally:
        assert not supervisor.stop(10.0)


def drained(store, left=lambda *_: None):
    """Both workers read, then one after the other pushes; the second is stale."""
    first, second = store.pull(0), store.pull(1)
    for worker, pulled, grads in ((0, first, GRADS[1]), (1, second, GRADS[2])):
        left(worker, grads)
        item = SimpleNamespace(unroll=3)
        store.admit_until(worker + 1)
        push = Push(given(grads), pulled, item, ("after", worker))
        store.push(worker, push, Times())
    return store.drain()


def test_a_server_whose_shards_are_elsewhere_is_the_server():
    with at_work(Server) as store:
        theirs = drained(store)
    system = System()

    def left(worker, grads):
        parts = SHARDS.divide(given(grads))
        for shard, part in zip(system.shards_held, parts, strict=True):
            shard.leave(worker, 3, on_host(part))

    with at_work(lambda *parts: FarServer(system, *parts)) as store:
        ours = drained(store, left)
        assert store.pull(1).state == () and store.pull(1).pushes == (2, 2)
    jax.tree.map(np.testing.assert_array_equal, ours.state, theirs.state)
    assert ours.workers == theirs.workers
    assert [x.metrics for x in ours.updates] == [x.metrics for x in theirs.updates]
    assert [x.metrics["lag"] for x in ours.updates] == [0.0, 1.0]
