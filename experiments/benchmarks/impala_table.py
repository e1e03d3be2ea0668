"""IMPALA's first table in small: who waits for whom, when steps take unequal times.

    uv run experiments/benchmarks/impala_table.py

Simulators that sleep, one for each actor: all steps take `--step-ms`, or times of that
mean that vary mildly (uniform between 0 and twice the mean) or heavily (exponential
over the same mean: some steps take many times as long). Environment steps per second of

    sync. steps         batched A2C: all environments step together, and each step
                        waits for the slowest; acting and learning in turn
    sync. trajectories  batched A2C: actors step on their own, and each update waits
                        for a trajectory of every actor, with the newest parameters
    dynamic batching    one thread acts for those who wait (`--threads.inference
                        central`), and trajectories are learned as they come
    IMPALA              actors act for themselves and wait for nobody

The agent is the same small network in all. Rates are medians over rounds, in each of
which all are measured in turn.

Source: Espeholt et al., arXiv:1802.01561, table 1.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console
from rich.table import Table
from sleeping import Sleeping

from jaxrl_par import cli, random
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.algorithms.impala import impala
from jaxrl_par.cli.entry import compute_in_place
from jaxrl_par.envs import host
from jaxrl_par.errors import above, at_least
from jaxrl_par.networks import actor_critic
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import CentralConfig, ThreadsConfig, threads
from jaxrl_par.training.files import write_json
from jaxrl_par.types import Agent, Box

OBSERVATION = Box((16,))
TIMES = {
    "constant": lambda rng, mean, shape: np.full(shape, mean),
    "mild": lambda rng, mean, shape: rng.uniform(0.0, 2 * mean, shape),
    "heavy": lambda rng, mean, shape: rng.exponential(mean, shape),
}
"""(rng, mean, shape) -> seconds that steps take"""


@dataclass(frozen=True)
class Args:
    """Measures who waits for whom."""

    num_actors: int = 8
    """Environments: one for each actor, or all in one batch."""
    unroll_length: int = 20
    step_ms: float = 4.0
    """Mean milliseconds of a step."""
    rounds: int = 3
    seconds: float = 5.0
    """Length of each measurement, after compilation."""
    output: Path = Path("impala_table.json")

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = dict.fromkeys(("num_actors", "unroll_length", "rounds"), 1)
        return at_least(self, **counts) + above(self, step_ms=0, seconds=0)


def systems(args: Args) -> dict[str, tuple[Agent, ThreadsConfig]]:
    """Each with its agent; all environments are in one actor where steps wait."""
    network = actor_critic(OBSERVATION, Sleeping.action_spec)
    batched = a2c(network, optax.sgd(1e-4), A2CConfig())
    corrected = impala(network, optax.sgd(1e-4))
    n, central = args.num_actors, CentralConfig(max_wait_ms=0.0)
    free = ThreadsConfig(n, unrolls_per_update=max(n // 2, 1), queue_size=n)
    return {
        "sync. steps": (batched, ThreadsConfig(1, "lockstep", 0)),
        "sync. trajectories": (batched, ThreadsConfig(n, "lockstep", 0)),
        "dynamic batching": (
            corrected,
            replace(free, inference="central", central=central),
        ),
        "IMPALA": (corrected, free),
    }


def measured(args: Args, agent: Agent, config: ThreadsConfig, kind: str) -> float:
    """Environment steps per second that were learned from."""

    def make(key: Any) -> host.HostEnvironment:
        rng = np.random.default_rng(int(jax.random.bits(key)) >> 1)
        num_envs = args.num_actors // config.num_actors
        seconds = TIMES[kind](rng, args.step_ms / 1e3, (4096, num_envs))
        return Sleeping(num_envs, OBSERVATION, seconds.max(axis=1))

    length = args.unroll_length
    with threads(agent, make, length, config, data_mesh(1)) as engine:
        run = engine.init(random.key(0))
        run, _ = engine.advance(run, 2)
        before, started = int(run.progress.env_steps), time.perf_counter()
        while (seconds := time.perf_counter() - started) < args.seconds:
            run, _ = engine.advance(run, 1)
        return (int(run.progress.env_steps) - before) / seconds


def run(args: Args) -> None:
    """Measures in turn, and shows medians."""
    compute_in_place()
    made = systems(args)
    rounds = [
        {
            kind: {name: measured(args, *parts, kind) for name, parts in made.items()}
            for kind in TIMES
        }
        for _ in range(args.rounds)
    ]
    table = Table("environment steps per second", *TIMES)
    rates = {}
    for name in made:
        rates[name] = {kind: median(x[kind][name] for x in rounds) for kind in TIMES}
        table.add_row(name, *(f"{rate:,.0f}" for rate in rates[name].values()))
    ideal = args.num_actors / args.step_ms * 1e3
    table.add_row("simulators alone", *(f"{ideal:,.0f}" for _ in TIMES))
    Console().print(table)
    settings = asdict(args) | {"output": str(args.output)}
    told = {"machine": cli.machine(), "settings": settings, "rates": rates}
    write_json(args.output, told | {"rounds": rounds})


if __name__ == "__main__":
    cli.main(run, Args)
