"""How often an unroll is copied on its way: once into the object store, by the process
that acted, and once out of it, into the batch. Counted, not timed."""

import tracemalloc
from contextlib import contextmanager

import fleets
import jax
import numpy as np
import pytest
from fleets import advanced, fleet_engine, lockstep

from jaxrl_par.fleet.arrays import on_host, own
from jaxrl_par.fleet.cluster import Call
from jaxrl_par.fleet.proxy import FleetActor

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def cluster():
    with fleets.started() as there:
        yield there


@contextmanager
def allocated():
    """Bytes that NumPy and Python had besides, at most."""
    most = []
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield most
        most.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()


def unroll() -> dict[str, np.ndarray]:
    """8 MB, in as many arrays as an unroll has: Ray's own buffers have 1 MB."""
    large = {"obs": np.ones((32, 32, 8 * 224), np.float32)}
    return large | {f"row {i}": np.ones((32, 32), np.float32) for i in range(16)}


def test_into_the_store_and_out_of_it_goes_one_copy_each(cluster):
    sent = unroll()
    size = sum(x.nbytes for x in sent.values())
    own(Call(cluster.put(on_host(sent))).result())  # what is made once is no copy
    with allocated() as most:
        reference = cluster.put(on_host(sent))
    assert most[0] < size / 4
    with allocated() as most:
        arrived = Call(reference).result()
    assert most[0] < size / 4
    assert not any(x.flags.owndata or x.flags.writeable for x in arrived.values())
    # One block of the store, in which all arrays lie.
    places = [x.ctypes.data for x in arrived.values()]
    assert max(places) - min(places) < size + MEGABYTE
    with allocated() as most:
        kept = own(arrived)
    assert size <= most[0] < 1.25 * size
    assert all(x.flags.owndata for x in kept.values())


def test_what_was_acted_lies_in_the_store_until_it_is_batched(monkeypatch):
    """The driver keeps no copy of its own before the learner's batch."""
    seen = []
    accept = FleetActor._own

    def watched(self, item):
        item = accept(self, item)
        leaves = jax.tree.leaves(item.trajectory)
        arrays = [x for x in leaves if isinstance(x, np.ndarray) and x.nbytes]
        seen.append(sum(x.flags.owndata or x.flags.writeable for x in arrays))
        return item

    monkeypatch.setattr(FleetActor, "_own", watched)
    advanced(fleet_engine(lockstep()), 4)
    assert len(seen) >= 8 and not any(seen)
