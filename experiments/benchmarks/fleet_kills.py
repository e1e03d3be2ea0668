"""Kills parts of a fleet at random moments, and sees that each time it goes on or ends.

    uv run --extra ray experiments/benchmarks/fleet_kills.py --num-kills 100

A fleet of a pure environment trains with `on_error = restart`. Again and again an
actor's process or the holder of the parameters is killed, or an actor's is made to
stand still. What is learned is recorded; at the end the record must have no unroll
twice, the restarts those that were caused, and its repetition in one process the same
bits. Beside that a compiled run, the driver of a fleet in lockstep, and one of two
processes of a learner are killed and go on from their checkpoints: see `run_kills`.

Kinds take turns. At the end no process, shared memory or socket of all of them is left,
and no folder of a cluster.
"""

import itertools
import json
import os
import random as python_random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optax
from left_behind import Belongings
from run_kills import KINDS as RUNS
from run_kills import Killed

from jaxrl_par import cli, random
from jaxrl_par.algorithms.impala import impala
from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.envs.host import from_pure
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.errors import above, at_least
from jaxrl_par.fleet.engine import ActorFleetEngine
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import probes
from jaxrl_par.topologies.fleet import FleetConfig, fleet
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, repeat_recorded
from jaxrl_par.training.checkpoints import state_hash

ENV = previous_action_and_reward(probes.counter(2))
LENGTH = 5
PARTS = ("actor", "holder", "stopped")
"""Of a fleet that goes on."""


@dataclass(frozen=True)
class Args:
    """Kills parts of a fleet."""

    num_kills: int = 10
    kinds: tuple[
        Literal["actor", "holder", "stopped", "compiled", "driver", "learner"], ...
    ] = (
        "actor",
        "driver",
        "holder",
        "learner",
        "stopped",
        "compiled",
    )
    num_actors: int = 2
    seed: int = 0
    timeout: float = 300.0
    """Seconds after which a run that should go on is taken to hang."""
    output: Path | None = None

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_kills=1, num_actors=1) + above(self, timeout=0)
        return found + ([] if self.kinds else ["kinds must name at least one"])

    def kills_of(self, names: Iterable[str]) -> list[str]:
        """The kinds of kills among these, in turn."""
        turns = itertools.islice(itertools.cycle(self.kinds), self.num_kills)
        return [kind for kind in turns if kind in names]


def disturb(engine: Any, kind: str, draw: python_random.Random) -> None:
    """Kills something of that kind, or makes it stand still."""
    if kind == "holder":
        engine._system.published._handle.kill()
        return
    leases = [x._lease for x in engine._pool if x._lease]
    if leases:
        what = signal.SIGSTOP if kind == "stopped" else signal.SIGKILL
        os.kill(draw.choice(leases).pid, what)


def lost(engine: ActorFleetEngine) -> int:
    """Restarts until now."""
    report = engine.report()
    assert report is not None
    return report.restarts


def killed(
    engine: ActorFleetEngine, args: Args, belongings: Belongings
) -> tuple[Any, int, list[dict]]:
    """The run, its updates, and what was done to it."""
    draw, kills, updates = python_random.Random(args.seed), [], 4
    run, _ = engine.advance(engine.init(random.key(args.seed)), updates)
    for kind in args.kills_of(PARTS):
        before = lost(engine)
        time.sleep(draw.uniform(0.0, 0.2))
        belongings.note(os.getpid())
        disturb(engine, kind, draw)
        started = time.perf_counter()
        # With a bound on the lag nobody goes on for long without who is lost.
        while lost(engine) == before:
            run, _ = engine.advance(run, 2)
            updates += 2
        seconds = time.perf_counter() - started
        kills.append({"kind": kind, "seconds": seconds})
        print(f"{len(kills):4} {kind:8} noticed within {seconds:.1f} s", flush=True)
    run, _ = engine.advance(run, 8)
    return run, updates + 8, kills


def in_parts(args: Args, folder: Path, belongings: Belongings) -> dict[str, Any]:
    """A fleet whose parts are killed, and what its record says."""
    network = actor_critic(*ENV.specs, NetworkConfig(widths=(8,)))
    agent, make_env = impala(network, optax.adam(0.01)), partial(from_pure, ENV)
    # Shorter, a crowded machine would be taken for a simulator that hangs.
    limits = SupervisionConfig("restart", args.num_kills, env_timeout=15.0)
    config = ThreadsConfig(args.num_actors, max_lag=1, supervision=limits)
    given = agent, make_env, LENGTH, config, data_mesh(1)
    record = folder / "schedule.jsonl"
    engine = fleet(*given, fleet=FleetConfig(object_store_mb=200))
    engine.record(record)
    try:
        run, updates, kills = killed(engine, args, belongings)
    finally:
        engine.close()
    lines = record.read_text().splitlines()
    again = repeat_recorded(*given, record)
    repeated, _ = again.advance(again.init(random.key(args.seed)), updates)
    again.close()
    entries = [tuple(x[:3]) for line in lines for x in json.loads(line)]
    hashes = [state_hash(x._replace(local=())) for x in (run, repeated)]
    return {
        "kills": kills,
        "restarts": lost(engine),
        "updates": updates,
        "learned_twice": len(entries) - len(set(entries)),
        "repeated": hashes[0] == hashes[1],
    }


def of_runs(args: Args, folder: Path, belongings: Belongings) -> dict[str, Any]:
    """Runs that are killed as a whole, or of which a learner is, by their kind."""
    found = {}
    for name, kind in RUNS.items():
        if number := len(args.kills_of([name])):
            runs = Killed(kind, folder / name, args.seed, args.timeout)
            runs.run(number)
            belongings.pids |= runs.belongings.pids
            belongings.sockets |= runs.belongings.sockets
            equal = len(set(runs.hashes)) == 1
            found[name] = {"kills": runs.kills, "equal": equal}
    return found


def main(args: Args) -> None:
    warnings.filterwarnings("ignore", "actor .*: made its environments anew")
    warnings.filterwarnings("ignore", "made a new holder")
    began, belongings = time.monotonic(), Belongings()
    parts = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.kills_of(PARTS):
            parts = in_parts(args, folder, belongings)
        runs = of_runs(args, folder, belongings)
    belongings.pids -= {os.getpid()}
    told = {
        "parts": parts,
        "runs": runs,
        "left": belongings.left(120.0) | folders(belongings.pids),
        "seconds": time.monotonic() - began,
    }
    print({name: x for name, x in told.items() if name == "left" or name == "seconds"})
    if args.output:
        machine = {"machine": cli.machine()}
        args.output.write_text(json.dumps(told | machine, indent=1) + "\n")
    if wrong := problems(told, len(args.kills_of(PARTS))):
        sys.exit("the fleet did not come through: " + "; ".join(wrong))


def folders(pids: set[int]) -> dict[str, list[str]]:
    """Those of clusters that these processes have left."""
    there = Path(tempfile.gettempdir()).glob("jaxrl_par-*-*")
    found = [str(x) for x in there if int(x.name.split("-")[1]) in pids]
    return {"folders": found} if found else {}


def problems(told: dict[str, Any], num_parts: int) -> list[str]:
    """What is not as it should be; empty if all is."""
    parts, found = told["parts"], []
    if parts and not parts["repeated"]:
        found.append("the record is not repeated in the same bits")
    if parts and parts["learned_twice"]:
        found.append(f"{parts['learned_twice']} unrolls were learned from twice")
    if parts and parts["restarts"] != num_parts:
        found.append(f"{parts['restarts']} restarts of {num_parts}")
    found += [f"{n}: other bits" for n, x in told["runs"].items() if not x["equal"]]
    return found + [f"{x} left: {y}" for x, y in told["left"].items()]


if __name__ == "__main__":
    cli.main(main, Args)
