"""Actors in processes beside actors in threads: rates, and what the way costs.

    uv run --extra hosts --extra envpool --extra ray experiments/benchmarks/fleet.py
    ... fleet.py --only LunarLander --pairs 1 --seconds 3

Both halves of a pair train IMPALA in this process, one after the other, on the same
processors: first threads, then a fleet. Rates are environment steps that were acted;
ratios are of pairs, and the medians of those. Simulators that hold the interpreter gain
by processes, others pay for the way. The way is timed by itself, too: an unroll of 1 MB
from another process into memory of this one.
"""

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxrl_par import cli, random
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.bridge.actor_learner.engine import ActorLearnerEngine
from jaxrl_par.envs import host
from jaxrl_par.errors import above, at_least
from jaxrl_par.fleet.cluster import Call, Cluster
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.fleet import fleet
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, threads


@dataclass(frozen=True)
class Case:
    """A simulator, and how it is run."""

    env_name: str
    backend: str
    num_envs: int
    """Of an actor."""
    unroll_length: int
    target: float
    """What the rate of a fleet is to be, in rates of threads."""


CASES = {
    "LunarLander, Gymnasium": Case("LunarLander-v3", "gymnasium", 16, 64, 1.6),
    "CartPole, EnvPool": Case("CartPole-v1", "envpool", 256, 64, 0.85),
}


@dataclass(frozen=True)
class Args:
    """Measures fleets."""

    only: str = ""
    """Part of the names of the cases to run, or of "transport"; all by default."""
    num_actors: int = 2
    pairs: int = 3
    seconds: float = 6.0
    """Length of each half of a pair, after compilation."""
    object_store_mb: int = 500
    output: Path | None = None

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, num_actors=1, pairs=1, object_store_mb=1) + above(
            self, seconds=0
        )


class Sender:
    """Has an unroll of 1 MB, in the arrays that an unroll has."""

    def __init__(self) -> None:
        # Made before: to fill it is no part of the way.
        self._parts = [np.ones((33, 32, 220), np.float32)]
        self._parts += [np.ones((32, 32), np.float32) for _ in range(16)]

    def nothing(self) -> None:
        """What any call costs."""

    def unroll(self) -> list[np.ndarray]:
        return self._parts


def make_env(case: Case, key: Any) -> host.HostEnvironment:
    """The simulators of one actor."""
    seed = int(jax.random.bits(key)) >> 1
    return host.make(case.env_name, case.num_envs, seed, backend=case.backend)


def rate(engine: ActorLearnerEngine, seconds: float) -> float:
    """Environment steps acted in a second, once all is compiled."""
    try:
        run, _ = engine.advance(engine.init(random.key(0)), 4)
        before, started = acted(engine), time.perf_counter()
        while (now := time.perf_counter()) - started < seconds:
            run, _ = engine.advance(run, 4)
        return (acted(engine) - before) / (now - started)
    finally:
        engine.close()


def acted(engine: ActorLearnerEngine) -> float:
    """Environment steps until now."""
    report = engine.report()
    assert report is not None
    return report.actor_steps_per_second * report.seconds


def measured(case: Case, args: Args) -> dict[str, Any]:
    """Rates of both, in pairs."""
    env = make_env(case, jax.random.key(0))
    network = actor_critic(env.observation_spec, env.action_spec, NetworkConfig())
    env.close()
    agent = impala(network, make_optimizer(OptimizerConfig(), 10**6), ImpalaConfig())
    config = ThreadsConfig(num_actors=args.num_actors)
    make = partial(make_env, case)
    given = agent, make, case.unroll_length, config, data_mesh(1)
    where = FleetConfig(object_store_mb=args.object_store_mb)
    pairs = []
    for _ in range(args.pairs):
        alone = rate(threads(*given), args.seconds)
        pairs.append((alone, rate(fleet(*given, fleet=where), args.seconds)))
    return {
        "threads": [x for x, _ in pairs],
        "fleet": [x for _, x in pairs],
        "ratio": median(y / x for x, y in pairs),
        "target": case.target,
    }


def transport(args: Args, count: int = 100) -> dict[str, Any]:
    """Milliseconds from asking a process for 1 MB until it lies in an array here."""
    cluster = Cluster(FleetConfig(object_store_mb=args.object_store_mb), cpus=1.0)
    try:
        sender, times, parts, copied = cluster.make(Sender), [], [], []
        for _ in range(count + 10):
            began = time.perf_counter()
            waited(sender.call("nothing"))
            asked = time.perf_counter()
            parts = waited(sender.call("unroll"))
            came = time.perf_counter()
            copied = [np.array(x) for x in parts]
            done = time.perf_counter()
            times.append([1e3 * (done - asked), 1e3 * (asked - began), done - came])
        whole, empty, copying = np.array(times[10:]).T
        shared = not any(x.flags.owndata or x.flags.writeable for x in parts)
        size = sum(x.nbytes for x in copied)
    finally:
        cluster.close()
    told = {f"ms_{q}": float(np.percentile(whole, q)) for q in (10, 50, 90)}
    told |= {"empty_ms": median(empty), "copy_out_ms": 1e3 * median(copying)}
    return {"bytes": size, "one_copy": shared, "target_ms": 3.0, **told}


def waited(call: Call) -> Any:
    """What it gives."""
    while not call.ready(1.0):
        pass
    return call.result()


def main(args: Args) -> None:
    console, results = Console(width=88), {}
    for name, case in CASES.items():
        if args.only not in name:
            continue
        if found := host.problems(case.env_name, case.backend):
            console.print(f"{name}: left out. {found[0]}", markup=False)
            continue
        results[name] = done = measured(case, args)
        pairs = zip(done["threads"], done["fleet"], strict=True)
        told = ", ".join(f"{x:,.0f}/{y:,.0f}" for x, y in pairs)
        console.print(f"{name}: {done['ratio']:.2f} (at least {case.target}); {told}")
    if args.only in "transport":
        results["transport"] = done = transport(args)
        told = f"{done['ms_50']:.2f} ms (at most 3), 90 %: {done['ms_90']:.2f} ms;"
        told += f" an empty call {done['empty_ms']:.2f} ms, copying out"
        told += f" {done['copy_out_ms']:.2f} ms"
        console.print(f"{done['bytes'] / 1e6:.2f} MB: {told}")
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    cli.main(main, Args)
