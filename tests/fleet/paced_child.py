"""Learners at their own pace in processes, without the checks of types that tests have:
prints a line of JSON with what came of each run, and of the same as data."""

import json
import os
import signal
import tempfile
import time
import warnings
from pathlib import Path

import fleets
import jax
import numpy as np
from gossip_child import ENV, KEY, LENGTH, agent, apart_by

from jaxrl_par.fleet.cluster import LostError
from jaxrl_par.fleet.paced_learners import PacedFleetEngine
from jaxrl_par.loops import learner_of, records
from jaxrl_par.loops.delays import recorded
from jaxrl_par.loops.peers import shared
from jaxrl_par.topologies.gossip import GossipConfig, gossip
from jaxrl_par.topologies.gossip.fleet import fleet_of_learners, repeat_recorded
from jaxrl_par.topologies.gossip.paced import OwnPace, Partners
from jaxrl_par.topologies.gossip.system import System


class Held(OwnPace):
    """The last learner is not done before there is a file."""

    def __init__(self, key, system, path):
        super().__init__(key, system)
        self._path = path

    def begin(self, place):
        self._place = place
        return super().begin(place)

    def act(self):
        while self._place == 2 and not self._path.exists():
            time.sleep(0.01)
        return super().act()


def paced(size, **options):
    config = GossipConfig(size, pace="own", **options)
    return fleet_of_learners(agent(), ENV, LENGTH, config, fleets.FLEET, patience=20.0)


def as_data(size, record, num_updates):
    """The recorded run, in one program."""
    config = GossipConfig(size, pace="own")
    schedule = recorded(record, size)
    program = gossip(agent(), ENV, LENGTH, config, schedule=schedule)
    run, step = jax.jit(program.init)(KEY), jax.jit(program.step)
    for _ in range(num_updates):
        run, _ = step(run)
    return run


def repeated(folder):
    """A run, which goes on in other processes, and its record as data."""
    record = folder / "schedule.jsonl"
    with paced(3) as engine:
        engine.record(record)
        half, first = engine.advance(engine.init(KEY), 20)
    with paced(3) as engine:
        engine.record(record)
        engine.init(KEY)
        engine.resume(half)
        run, second = engine.advance(half, 13)
        run, third = engine.advance(run, 7)
        report = engine.report()
    config = GossipConfig(3, pace="own")
    replay = repeat_recorded(agent(), ENV, LENGTH, config, record)
    theirs, metrics = replay.advance(replay.init(KEY), 40)
    data = as_data(3, record, 40)
    ours = jax.tree.map(lambda *xs: np.concatenate(xs), first, second, third)
    missed = ours["missed"]
    same = jax.tree.map(
        lambda x, y: np.array_equal(x, y, equal_nan=True), ours, metrics
    )
    return {
        "hashes": [fleets.whole_hash(x) for x in (run, theirs)],
        "from_data": apart_by(shared(run.learner), shared(data.learner)),
        "metrics": [name for name, x in same.items() if not jax.tree.all(x)],
        "missed": [float(x.sum()) for x in missed],
        "entries": len(records.read_turns(record)),
        "turns": report.turns,
        "met": sum(report.met.values()),
        "lags": report.lags,
        "lines": report.lines(),
        "steps": np.asarray(run.progress.env_steps.units).tolist(),
    }


def held(folder):
    """Turns of each while the last one is not done, and in the end."""
    file, system = folder / "go", System(learner_of(agent()), ENV, LENGTH, OWN)
    parts = Held, (system, file), 3, Partners(system)
    with PacedFleetEngine(*parts, fleets.FLEET, 60.0, 0) as engine:
        run, _ = engine.advance(engine.init(KEY), 30)
        before = engine.report()
        file.touch()
        while not engine.report().turns[2]:
            run, _ = engine.advance(run, 5)
        after = engine.report()
    return {
        "before": before.turns,
        "met": [before.met.get((i, 2), 0) for i in range(2)],
        "after": after.turns,
        "lag": max(after.lags),
    }


OWN = GossipConfig(3, pace="own")


def lost(how, folder, **options):
    """What becomes of three of which one is killed, or stands still."""
    record, end, metrics = folder / f"{how}-{len(options)}.jsonl", "", {}
    with paced(3, **options) as engine, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        engine.record(record)
        run, _ = engine.advance(engine.init(KEY), 10)
        lease = engine._processes.leases[1]
        os.kill(lease.pid, how)
        try:
            run, metrics = engine.advance(run, 1000)
            run, _ = engine.advance(run, 10)
            while not engine._meetings.met.get((0, 1)):
                run, _ = engine.advance(run, 10)
        except LostError as error:
            end = str(error)
        pids = [x.pid for x in engine._processes.leases.values()] + [lease.pid]
        report = engine.report()
    deadline = time.monotonic() + 60
    while any(map(fleets.is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    found = {
        "told": [str(x.message) for x in told],
        "end": end,
        "alive": any(map(fleets.is_alive, pids)),
        "entries": len(records.read_turns(record)),
    }
    if end:
        return found
    finite = [bool(np.isfinite(x).all()) for x in jax.tree.leaves(run.learner)]
    return found | {
        "restarts": report.restarts,
        "updates": np.asarray(run.progress.updates.units).tolist(),
        "turns": sum(report.turns),
        "missed": [float(x.sum()) for x in metrics["missed"]],
        "finite": all(finite),
    }


def main() -> None:
    with fleets.started(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = {"repeated": repeated(folder), "held": held(folder)}
        told["raised"] = lost(signal.SIGKILL, folder)
        again = {"on_error": "restart", "max_restarts": 1}
        told["killed"] = lost(signal.SIGKILL, folder, **again)
        told["stopped"] = lost(signal.SIGSTOP, folder, **again)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
