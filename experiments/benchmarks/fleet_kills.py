"""Kills parts of a fleet at random moments, and sees that each time it goes on or ends.

    uv run --extra ray experiments/benchmarks/fleet_kills.py --num-kills 100

A fleet of a pure environment trains with `on_error = restart`. Again and again an
actor's process or the holder of the parameters is killed, or made to stand still. What
is learned is recorded; at the end the record must have no unroll twice, the restarts
those that were caused, and its repetition in one process the same bits. A driver that
is killed, with all that is left by it, is a test: `tests/fleet/test_fleet_ends.py`.
"""

import json
import os
import random as python_random
import signal
import tempfile
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optax

from jaxrl_par import cli, random
from jaxrl_par.algorithms.impala import impala
from jaxrl_par.bridge.supervision import SupervisionConfig
from jaxrl_par.envs.host import from_pure
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.fleet.engine import ActorFleetEngine
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.testing import probes
from jaxrl_par.topologies.fleet import FleetConfig, fleet
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, repeat_recorded
from jaxrl_par.training.checkpoints import state_hash

ENV = previous_action_and_reward(probes.counter(2))
LENGTH = 5
KINDS = ("actor", "holder", "stopped")


@dataclass(frozen=True)
class Args:
    """Kills parts of a fleet."""

    num_kills: int = 10
    num_actors: int = 2
    seed: int = 0
    output: Path | None = None


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


def killed(engine: ActorFleetEngine, args: Args) -> tuple[Any, int, list[dict]]:
    """The run, its updates, and what was done to it."""
    draw, kills, updates = python_random.Random(args.seed), [], 4
    run, _ = engine.advance(engine.init(random.key(args.seed)), updates)
    for number in range(args.num_kills):
        kind, before = KINDS[number % len(KINDS)], lost(engine)
        time.sleep(draw.uniform(0.0, 0.2))
        disturb(engine, kind, draw)
        started = time.perf_counter()
        # With a bound on the lag nobody goes on for long without who is lost.
        while lost(engine) == before:
            run, _ = engine.advance(run, 2)
            updates += 2
        seconds = time.perf_counter() - started
        kills.append({"kind": kind, "seconds": seconds})
        print(f"{number + 1:4} {kind:8} noticed within {seconds:.1f} s", flush=True)
    run, _ = engine.advance(run, 8)
    return run, updates + 8, kills


def main(args: Args) -> None:
    warnings.filterwarnings("ignore", "actor .*: made its environments anew")
    warnings.filterwarnings("ignore", "made a new holder")
    network = actor_critic(*ENV.specs, NetworkConfig(widths=(8,)))
    agent, make_env = impala(network, optax.adam(0.01)), partial(from_pure, ENV)
    limits = SupervisionConfig("restart", args.num_kills, env_timeout=3.0)
    config = ThreadsConfig(args.num_actors, max_lag=1, supervision=limits)
    given = agent, make_env, LENGTH, config, data_mesh(1)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "schedule.jsonl"
        engine = fleet(*given, fleet=FleetConfig(object_store_mb=200))
        engine.record(record)
        try:
            run, updates, kills = killed(engine, args)
        finally:
            engine.close()
        lines = record.read_text().splitlines()
        again = repeat_recorded(*given, record)
        repeated, _ = again.advance(again.init(random.key(args.seed)), updates)
        again.close()
    entries = [tuple(x[:3]) for line in lines for x in json.loads(line)]
    told = {
        "kills": kills,
        "restarts": lost(engine),
        "updates": updates,
        "learned_twice": len(entries) - len(set(entries)),
        "repeated": state_hash(run._replace(local=()))
        == state_hash(repeated._replace(local=())),
    }
    print({name: x for name, x in told.items() if name != "kills"})
    if args.output:
        args.output.write_text(json.dumps(told, indent=1) + "\n")
    fine = told["repeated"] and not told["learned_twice"]
    if not fine or told["restarts"] != args.num_kills:
        raise SystemExit("the fleet did not come through")


if __name__ == "__main__":
    cli.main(main, Args)
