"""Learners in processes, which average with one another: compiled gossip, apart."""

import os
import signal
import time

import fleets
import jax
import numpy as np
import optax
import pytest
from fleets import FLEET, KEY, whole_hash
from nearness import assert_near

from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.fleet.cluster import LostError
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.topologies.gossip import GossipConfig, gossip
from jaxrl_par.topologies.gossip.fleet import fleet_of_learners
from jaxrl_par.topologies.sharded import data_mesh

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
LENGTH = 5


@pytest.fixture(scope="module")
def cluster():
    with fleets.started() as there:
        yield there


def agent():
    network = actor_critic(*fleets.ENV.specs, NetworkConfig(widths=(8,)))
    return normalize_observations(a2c(network, optax.rmsprop(0.01)))


def apart(config, **options):
    return fleet_of_learners(agent(), fleets.ENV, LENGTH, config, FLEET, **options)


def compiled(config, num_updates, mesh=None):
    program = gossip(agent(), fleets.ENV, LENGTH, config, mesh=mesh)
    run, step = jax.jit(program.init)(KEY), jax.jit(program.step)
    for _ in range(num_updates):
        run, _ = step(run)
    return run


def on_host(tree):
    """In one place, whatever devices it was on."""
    return jax.tree.map(
        lambda x: x if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
        else np.asarray(x), tree,
    )  # fmt: skip


def advanced(engine, *chunks, disturb=lambda _: None):
    """The run after so many updates, and metrics; it is disturbed after the first."""
    metrics = []
    try:
        run = engine.init(KEY)
        for i, count in enumerate(chunks):
            run, new = engine.advance(run, count)
            metrics.append(new)
            if not i:
                disturb(engine)
    finally:
        engine.close()
    return run, metrics


@pytest.mark.parametrize("kind", ["random", "ring"])
def test_they_do_what_a_learner_on_each_device_does(kind):
    """Bit for bit; statistics of observations move, too. To rounding what they do side
    by side on one device."""
    config = GossipConfig(3, kind)
    ours, (_, metrics) = advanced(apart(config), 3, 4)
    theirs = compiled(config, 7, data_mesh(3))
    assert whole_hash(on_host(ours)) == whole_hash(on_host(theirs))
    beside = compiled(config, 7)
    assert_near(on_host(ours.learner), on_host(beside.learner), 1e-4)
    assert metrics["distance"].total.shape == (4, 3)
    assert not metrics["missed"].total.any()


def test_a_run_goes_on_in_other_processes_where_it_was_left():
    config = GossipConfig(2)
    whole, _ = advanced(apart(config), 6)
    half, _ = advanced(apart(config), 3)
    other = apart(config)
    try:
        other.init(KEY)
        other.resume(half)
        run, _ = other.advance(half, 3)
    finally:
        other.close()
    assert whole_hash(run) == whole_hash(whole)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_dies_or_stands_still_is_missed_and_counted(how):
    """The others go on in their pairs; in the run it has the mean of the others."""
    pids = []

    def disturb(engine):
        pids.append(engine._leases[2].pid)
        os.kill(pids[0], how)

    engine = apart(GossipConfig(3), patience=4.0)
    with pytest.warns(UserWarning, match="learner 2 is lost: 2 of 3 go on without it"):
        run, (_, metrics) = advanced(engine, 2, 12, disturb=disturb)
    missed = metrics["missed"]
    assert missed.total.shape == (12, 3)
    assert missed.total[:, :2].sum() > 0 and not missed.count[:, 2].any()
    params = on_host(run.learner.params)
    means = jax.tree.map(lambda x: x[:2].mean(axis=0), params)
    assert_near(jax.tree.map(lambda x: x[2], params), means, 1e-5)
    assert np.asarray(run.progress.updates.units).tolist() == [14, 14, 14]
    deadline = time.monotonic() + 60
    while fleets.is_alive(pids[0]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not fleets.is_alive(pids[0])


def test_without_any_learner_the_run_ends():
    def disturb(engine):
        for lease in engine._leases.values():
            os.kill(lease.pid, signal.SIGKILL)

    with pytest.raises(LostError, match="all 2 learners are lost"):
        advanced(apart(GossipConfig(2)), 2, 50, disturb=disturb)
