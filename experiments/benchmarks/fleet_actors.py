"""A process of actors without JAX beside one with it: start, memory, rate.

    uv run --extra hosts --extra ray experiments/benchmarks/fleet_actors.py
    ... fleet_actors.py --pairs 1 --seconds 1

Both train IMPALA on CartPole in a fleet of one process, in pairs, one after the other.
A process is there when its actor has made its environments. Memory is what it has for
itself (Pss, which shares files that several have mapped), once it has acted.
"""

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rich.console import Console

from jaxrl_par import cli, random
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.envs.host import Seeded, make
from jaxrl_par.errors import above, at_least
from jaxrl_par.fleet.cluster import Cluster
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.fleet import fleet
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig

LENGTH = 64
KINDS: tuple[Literal["jax", "numpy"], ...] = ("jax", "numpy")


@dataclass(frozen=True)
class Args:
    """Measures processes of actors."""

    pairs: int = 3
    seconds: float = 4.0
    """Length of what rates are measured in, after compilation."""
    env_name: str = "CartPole-v1"
    num_envs: int = 16
    object_store_mb: int = 500
    output: Path | None = None

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, pairs=1, num_envs=1, object_store_mb=1) + above(
            self, seconds=0
        )


def measured(args: Args, act_with: Literal["jax", "numpy"]) -> dict[str, float]:
    """One process, from its start until it has acted for a while."""
    make_env = Seeded(partial(make, args.env_name, args.num_envs))
    env = make_env(random.key(0))
    network = actor_critic(*env.specs, NetworkConfig())
    env.close()
    agent = impala(network, make_optimizer(OptimizerConfig(), 10**6), ImpalaConfig())
    config = ThreadsConfig(num_actors=1, act_with=act_with)
    where = FleetConfig(object_store_mb=args.object_store_mb)
    engine = fleet(agent, make_env, LENGTH, config, data_mesh(1), fleet=where)
    try:
        began = time.perf_counter()
        run = engine.init(random.key(0))
        there = time.perf_counter()
        run, _ = engine.advance(run, 4)
        started, before = time.perf_counter(), acted(engine)
        while (now := time.perf_counter()) - started < args.seconds:
            run, _ = engine.advance(run, 4)
        rate = (acted(engine) - before) / (now - started)
        member: Any = next(iter(engine._pool))
        return {
            "start_seconds": there - began,
            "megabytes": megabytes(member._lease.pid),
            "steps_per_second": rate,
        }
    finally:
        engine.close()


def acted(engine: Any) -> float:
    """Environment steps until now."""
    report = engine.report()
    return report.actor_steps_per_second * report.seconds


def megabytes(pid: int) -> float:
    """What a process has for itself, in 10^6 bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (line,) = (x for x in text.splitlines() if x.startswith("Pss:"))
    return int(line.split()[1]) * 1024 / 1e6


def main(args: Args) -> None:
    console = Console(width=88)
    # It stays until the end: what it takes to start one is in no figure.
    cluster = Cluster(FleetConfig(object_store_mb=args.object_store_mb), cpus=2.0)
    try:
        pairs = [[measured(args, x) for x in KINDS] for _ in range(args.pairs)]
    finally:
        cluster.close()
    results: dict[str, Any] = {}
    for name in pairs[0][0]:
        both = {kind: [pair[i][name] for pair in pairs] for i, kind in enumerate(KINDS)}
        ratio = median(y / x for x, y in zip(*both.values(), strict=True))
        results[name] = both | {"ratio": ratio}
        told = ", ".join(f"{kind} {median(x):,.1f}" for kind, x in both.items())
        console.print(f"{name}: {told}; numpy / jax {ratio:.2f}", markup=False)
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    cli.main(main, Args)
