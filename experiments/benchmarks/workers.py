"""What a second worker brings, and what the stores cost: rates in one run, in turn.

    python experiments/benchmarks/workers.py

Measures, all alternately so that each meets the same machine, medians over rounds:

* environment steps per second with one and with several workers, for every store, on
  EnvPool (which releases the interpreter), on a Python simulator (which holds it), and
  on a pure environment (one compiled call for each unroll);
* the same for as many processes with one worker each, which share nothing: what this
  machine has to offer, whatever threads do with it;
* where the workers' time goes, how stale gradients are, how many of Hogwild's writes
  are lost, and how far it ends from its own schedule without races;
* `topologies.delayed` with 16 workers beside the synchronous program with gradients of
  the same size.
"""

import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, envs, random
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.bridge.unrolled import MakeEnv
from jaxrl_par.envs import host
from jaxrl_par.envs.host.envpool import from_envpool
from jaxrl_par.errors import at_least, unknown_name
from jaxrl_par.loops import schedules
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.delayed import delayed
from jaxrl_par.topologies.workers import WorkersConfig, repeat_recorded, workers
from jaxrl_par.types import Agent

STORES: dict[str, tuple[Literal["lock", "hogwild", "server"], int]] = {
    "lock": ("lock", 1),
    "hogwild": ("hogwild", 1),
    "server": ("server", 1),
    "server, 4 shards": ("server", 4),
}


@dataclass(frozen=True)
class Args:
    """What to measure, and for how long."""

    num_workers: int = 2
    """To compare with one."""
    cases: tuple[str, ...] = ("EnvPoolLander", "EnvPool", "LunarLander", "pure")
    rounds: int = 5
    seconds: float = 3.0
    """Length of each measurement."""
    output: Path = Path("workers.json")

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_workers=2, rounds=1)
        if not self.seconds > 0:
            found.append(f"seconds must be above 0, got {self.seconds}")
        for name in self.cases:
            if name not in CASES:
                found.append(str(unknown_name("case", name, CASES)))
            elif env_name := CASES[name].envpool:
                found += host.problems(env_name, "envpool")
        return found


@dataclass(frozen=True)
class Case:
    """Environments of one worker, and the length of its unrolls."""

    name: str
    make: Callable[[], envs.Environment | MakeEnv]
    num_envs: int
    unroll_length: int
    envpool: str = ""
    """Its name in EnvPool, if it is from there."""


def simulators(make: Callable[[int], host.HostEnvironment]) -> MakeEnv:
    return lambda key: make(int(jax.random.bits(key)) >> 1)


CASES = {
    "EnvPool": Case(
        "EnvPool CartPole",
        lambda: simulators(
            lambda seed: from_envpool("CartPole-v1", 256, seed, num_threads=1)
        ),
        256,
        32,
        "CartPole-v1",
    ),
    "EnvPoolLander": Case(
        "EnvPool LunarLander",
        lambda: simulators(
            lambda seed: from_envpool("LunarLander-v2", 64, seed, num_threads=1)
        ),
        64,
        32,
        "LunarLander-v2",
    ),
    "LunarLander": Case(
        "LunarLander, Gymnasium",
        lambda: simulators(lambda seed: host.make("LunarLander-v3", 8, seed)),
        8,
        32,
    ),
    "pure": Case("pure CartPole", lambda: envs.make("CartPole-v1", 64), 64, 32),
}


def agent_for(env: Any) -> Agent:
    """A2C with Shared RMSProp."""
    network = actor_critic(env.observation_spec, env.action_spec, NetworkConfig())
    optimizer = OptimizerConfig(name="rmsprop", learning_rate=1e-3, anneal=False)
    return a2c(network, make_optimizer(optimizer), A2CConfig())


class Measured:
    """One engine at work."""

    def __init__(self, case: Case, store: str, num_workers: int):
        kind, num_shards = STORES[store]
        env = case.make()
        if isinstance(env, envs.Environment):
            agent = agent_for(env)
        else:
            shown = env(random.key(0))
            agent = agent_for(shown)
            shown.close()
        config = WorkersConfig(
            num_workers=num_workers, store=kind, num_shards=num_shards
        )
        self.engine = workers(agent, env, case.unroll_length, config)
        self.run = self.engine.init(random.key(0))
        self.run, _ = self.engine.advance(self.run, 4 * num_workers)

    def rate(self, seconds: float) -> tuple[float, float]:
        """Environment steps per second, and CPU-seconds per second."""
        before, cpu = int(self.run.progress.env_steps), time.process_time()
        started = time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            self.run, _ = self.engine.advance(self.run, 20)
        passed = time.perf_counter() - started
        steps = int(self.run.progress.env_steps) - before
        return steps / passed, (time.process_time() - cpu) / passed


def apart(name: str, num_processes: int, args: Args) -> dict[str, Any]:
    """One process with one worker, and several at once: no lock, no interpreter, and
    no parameters in common."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(num_processes):
        ours, theirs = context.Pipe()
        process = context.Process(target=alone, args=(name, args.seconds, theirs))
        process.start()
        # So that the pipe ends with the process, and nobody waits for a dead one.
        theirs.close()
        pipes.append(ours)
        processes.append(process)

    def rates(some: list) -> list[tuple[float, float]]:
        for pipe in some:
            pipe.send("measure")
        return [pipe.recv() for pipe in some]

    try:
        for pipe in pipes:
            pipe.recv()
        one, all_ = [], []
        for _ in range(args.rounds):
            one.append(rates(pipes[:1]))
            all_.append(rates(pipes))
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join()
    totals = [[sum(x) for x in zip(*found, strict=True)] for found in all_]
    return {
        "case": CASES[name].name,
        "store": f"{num_processes} processes",
        "steps_per_second": {
            1: statistics.median(rate for ((rate, _),) in one),
            num_processes: statistics.median(rate for rate, _ in totals),
        },
        "cores": {
            1: statistics.median(used for ((_, used),) in one),
            num_processes: statistics.median(used for _, used in totals),
        },
        "speed_up": statistics.median(
            total / rate for (total, _), ((rate, _),) in zip(totals, one, strict=True)
        ),
    }


def alone(name: str, seconds: float, pipe: Any) -> None:
    """A process of `apart`: measures whenever it is told to, until the pipe ends."""
    measured = Measured(CASES[name], "lock", 1)
    pipe.send("ready")
    try:
        while pipe.recv():
            pipe.send(measured.rate(seconds))
    except EOFError:
        measured.engine.close()


def scaling(case: Case, args: Args) -> list[dict[str, Any]]:
    """Every store, with one worker and with several."""
    rows = []
    for store in STORES:
        counts = (1, args.num_workers)
        measured = {n: Measured(case, store, n) for n in counts}
        rates = {n: [] for n in counts}
        cores = {n: [] for n in counts}
        for _ in range(args.rounds):
            for n, engine in measured.items():
                rate, used = engine.rate(args.seconds)
                rates[n].append(rate)
                cores[n].append(used)
        for engine in measured.values():
            engine.engine.close()
        report = measured[args.num_workers].engine.report()
        assert report is not None
        pairs = zip(rates[args.num_workers], rates[1], strict=True)
        rows.append(
            {
                "case": case.name,
                "store": store,
                "steps_per_second": {n: statistics.median(x) for n, x in rates.items()},
                "cores": {n: statistics.median(x) for n, x in cores.items()},
                "speed_up": statistics.median(b / a for b, a in pairs),
                "lag": report.lag(),
                "shares": report.row(),
                "statistics": report.statistics,
            }
        )
    return rows


def races(num_workers: int, num_updates: int = 400) -> dict[str, float]:
    """How far Hogwild ends from its own schedule, run without races."""
    case = CASES["pure"]
    env = case.make()
    agent = agent_for(env)
    config = WorkersConfig(num_workers=num_workers, store="hogwild")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "schedule.jsonl"
        engine = workers(agent, env, case.unroll_length, config)
        start = engine.init(random.key(0))
        engine.record(path)
        run, _ = engine.advance(start, num_updates)
        engine.close()
        serial = repeat_recorded(agent, env, case.unroll_length, config, path)
        again, _ = serial.advance(serial.init(random.key(0)), num_updates)
        serial.close()
    vectors = [
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(y.learner.params)])
        for y in (start, run, again)
    ]
    moved = np.linalg.norm(vectors[1] - vectors[0])
    report = engine.report()
    assert report is not None
    return {
        "updates": num_updates,
        "distance": float(np.linalg.norm(vectors[1] - vectors[2])),
        "distance_over_way": float(np.linalg.norm(vectors[1] - vectors[2]) / moved),
        **report.statistics,
    }


def late(
    args: Args, num_envs: int = 16, unroll_length: int = 20
) -> dict[str, dict[str, float]]:
    """Steps of `delayed` with 16 workers over those of the synchronous program, in a
    second and in a CPU-second."""
    env = envs.make("CartPole-v1", num_envs)
    agent = agent_for(env)
    length = 500
    make = partial(delayed, agent, env, unroll_length, num_workers=16)
    programs = {
        "synchronous": compiled(agent, env, unroll_length),
        "ring": make(schedules.in_turn(16, length, delay=15)),
        "copies": make(
            schedules.simulated(schedules.steady(length, np.ones(16))),
            storage="copies",
        ),
        "heavy-tailed ring": make(
            schedules.simulated(schedules.heavy_tailed(length, 16, 0, 1.5))
        ),
    }
    calls = {}
    for name, program in programs.items():
        run = jax.jit(program.init)(random.key(0))
        call = jax.jit(scanned(program, length), donate_argnums=0)
        calls[name] = call, jax.block_until_ready(call(run))[0]
    times = {name: [] for name in calls}
    for _ in range(2 * args.rounds + 1):
        for name, (call, run) in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run, _ = jax.block_until_ready(call(run))
            took = time.perf_counter() - wall, time.process_time() - cpu
            times[name].append(took)
            calls[name] = call, run
    synchronous = times.pop("synchronous")
    return {
        name: {
            clock: statistics.median(
                a[i] / b[i] for a, b in zip(synchronous, x, strict=True)
            )
            for i, clock in enumerate(("second", "cpu_second"))
        }
        for name, x in times.items()
    }


def run(args: Args) -> None:
    """Measures, prints, writes."""
    rows = []
    for name in args.cases:
        rows += [apart(name, args.num_workers, args), *scaling(CASES[name], args)]
    n = args.num_workers
    table = Table(
        "environment", "store", "1 worker", f"{n} workers", "speed-up", "cores", "lag",
        "counted",
        title="environment steps per second",
    )  # fmt: skip
    for row in rows:
        rates = row["steps_per_second"]
        cores = " ".join(f"{x:.2f}" for x in row["cores"].values())
        counted = row.get("statistics", {}).items()
        table.add_row(
            row["case"], row["store"], f"{rates[1]:,.0f}", f"{rates[n]:,.0f}",
            f"{row['speed_up']:.2f}", cores,
            f"{row['lag']:.2f}" if "lag" in row else "",
            ", ".join(f"{name} {x:.3g}" for name, x in counted),
        )  # fmt: skip
    console = Console(width=120)
    console.print(table)
    raced, rates = races(n), late(args)
    console.print("hogwild against its schedule without races:", raced)
    console.print("delayed over synchronous:", rates)
    result = {
        "rows": rows,
        "races": raced,
        "delayed_over_synchronous": rates,
        "machine": cli.machine(),
    }
    args.output.write_text(json.dumps(result, indent=1))
    console.print(f"written to {args.output}")


if __name__ == "__main__":
    cli.main(run, Args)
