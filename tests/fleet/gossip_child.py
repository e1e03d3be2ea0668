"""Learners in processes, without the checks of types that tests have: prints a line of
JSON with what came of each run, and of the compiled program."""

import json
import os
import signal
import time
import warnings

import fleets
import jax
import numpy as np
import optax

from jaxrl_par.algorithms.a2c import a2c
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.fleet.cluster import LostError
from jaxrl_par.loops.peers import shared
from jaxrl_par.topologies.gossip import GossipConfig, gossip
from jaxrl_par.topologies.gossip.fleet import fleet_of_learners
from jaxrl_par.topologies.sharded import data_mesh

ENV, KEY, LENGTH = fleets.ENV, fleets.KEY, 5


def agent():
    network = fleets.actor_critic(*ENV.specs, fleets.NetworkConfig(widths=(8,)))
    return normalize_observations(a2c(network, optax.rmsprop(0.01)))


def apart(config, **options):
    return fleet_of_learners(agent(), ENV, LENGTH, config, fleets.FLEET, **options)


def compiled(config, num_updates, mesh):
    program = gossip(agent(), ENV, LENGTH, config, mesh=mesh)
    run, step = jax.jit(program.init)(KEY), jax.jit(program.step)
    for _ in range(num_updates):
        run, _ = step(run)
    return jax.device_put(run, jax.devices()[0])


def advanced(engine, *chunks, disturb=lambda _: None):
    """The run after so many updates, and metrics; it is disturbed after the first."""
    metrics = {}
    with engine:
        run = engine.init(KEY)
        for i, count in enumerate(chunks):
            run, metrics = engine.advance(run, count)
            if not i:
                disturb(engine)
    return run, metrics


def apart_by(ours, theirs) -> float:
    """The largest difference of a leaf, in the largest number of that leaf."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    pairs = [(np.asarray(x, "f8"), np.asarray(y, "f8")) for x, y in pairs]
    return max(
        float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-9)) for x, y in pairs
    )


def equal():
    """Hashes of a run of three and of one with a learner on each device, and how far it
    is from theirs side by side."""
    config = GossipConfig(3)
    ours, metrics = advanced(apart(config), 3, 4)
    theirs = compiled(config, 7, data_mesh(3))
    beside = compiled(config, 7, None)
    return {
        "ours": fleets.whole_hash(ours),
        "theirs": fleets.whole_hash(theirs),
        "beside": apart_by(shared(ours.learner), shared(beside.learner)),
        "shape": metrics["distance"].total.shape,
        "missed": float(metrics["missed"].total.sum()),
        "met": float(metrics["missed"].count.sum()),
    }


def resumed():
    """Hashes of a run, and of one that went on in other processes."""
    with apart(GossipConfig(2)) as engine:
        half, _ = engine.advance(engine.init(KEY), 3)
        whole, _ = engine.advance(half, 3)
    with apart(GossipConfig(2)) as other:
        other.init(KEY)
        other.resume(half)
        run, _ = other.advance(half, 3)
    return [fleets.whole_hash(x) for x in (whole, run)]


def lost(how, patience):
    """What becomes of two of which one is killed, or stands still, and then the other
    is killed."""
    engine = apart(GossipConfig(2), patience=patience)
    with engine, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run, _ = engine.advance(engine.init(KEY), 2)
        pids = [engine._processes.leases[i].pid for i in range(2)]
        os.kill(pids[1], how)
        run, metrics = engine.advance(run, 12)
        os.kill(pids[0], signal.SIGKILL)
        try:
            engine.advance(run, 2)
            end = "it went on"
        except LostError as error:
            end = str(error)
    first, second = (jax.tree.map(lambda x, i=i: x[i], run.learner) for i in range(2))
    deadline = time.monotonic() + 60
    while any(map(fleets.is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return {
        "told": [str(x.message) for x in told],
        "missed": metrics["missed"].total.sum(axis=0).tolist(),
        "meetings": metrics["missed"].count.sum(axis=0).tolist(),
        "norms": np.isnan(metrics["grad_norm"]).all(axis=0).tolist(),
        "from_mean": apart_by(shared(second), shared(first)),
        "updates": np.asarray(run.progress.updates.units).tolist(),
        "alive": any(map(fleets.is_alive, pids)),
        "end": end,
    }


def main() -> None:
    with fleets.started():
        told = {"equal": equal(), "resumed": resumed()}
        told |= {"killed": lost(signal.SIGKILL, 60.0)}
        told |= {"stopped": lost(signal.SIGSTOP, 15.0)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
