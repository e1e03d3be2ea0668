"""What the bridge of actor threads costs: its rate beside that of the simulators alone.

    uv run --extra hosts --extra envpool experiments/benchmarks/bridge.py
    ... bridge.py --json-line --only CartPole        # one line, for pairs.py

Both halves of a pair run in this process, on the same cores, one after the other: the
simulators stepped with random actions by as many threads as there are actors, and then
IMPALA, acting and learning. Rates are environment steps of the stream (rows that are no
`last`), and medians are over pairs. Below, the time of one call to act, numpy to numpy.
"""

import json
import resource
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.bridge.acting import acting
from jaxrl_par.envs import host
from jaxrl_par.errors import above, at_least
from jaxrl_par.networks import Network, NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, threads
from jaxrl_par.types import Box, Count, Discrete, TimeStep

SMALL = NetworkConfig()
LARGE = NetworkConfig(widths=(256, 256), activation="relu", shared=False)
ATARI = NetworkConfig(torso="shallow", widths=(256,))


@dataclass(frozen=True)
class Case:
    """A simulator, and how it is run."""

    env_name: str
    backend: str
    num_envs: int
    """How many all actors have together."""
    num_actors: int
    unroll_length: int
    network: NetworkConfig | None
    """None reads 49 pixels: what is left is the cost of the bridge itself."""
    target: float
    """Share of the simulators' own rate that the bridge is to reach."""


CASES = {
    "CartPole, EnvPool, 64 x 64": Case(
        "CartPole-v1", "envpool", 512, 2, 32, SMALL, 0.35
    ),
    "CartPole, EnvPool, 2 x 256 x 256": Case(
        "CartPole-v1", "envpool", 512, 2, 128, LARGE, 0.0
    ),
    "LunarLander, Gymnasium": Case(
        "LunarLander-v3", "gymnasium", 32, 2, 20, SMALL, 0.7
    ),
    "LunarLander, Gymnasium, 1 actor": Case(
        "LunarLander-v3", "gymnasium", 32, 1, 64, SMALL, 0.7
    ),
    "Pong, ALE, shallow network": Case("ALE/Pong-v5", "auto", 32, 2, 20, ATARI, 0.85),
    "Pong, ALE, 49 pixels": Case("ALE/Pong-v5", "auto", 32, 2, 20, None, 0.85),
    "Pong, ALE, 49 pixels, 1 actor": Case("ALE/Pong-v5", "auto", 32, 1, 20, None, 0.85),
}


@dataclass(frozen=True)
class Args:
    """Measures the bridge."""

    only: str = ""
    """Part of the names of the cases to run; all by default."""
    pairs: int = 3
    seconds: float = 6.0
    """Length of each half of a pair, after compilation."""
    schedule: Literal["free", "lockstep"] = "free"
    json_line: bool = False
    """Run the first case once, without the simulators alone, and print one line."""
    output: Path | None = None
    cases: tuple[str, ...] = field(default=tuple(CASES))

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, pairs=1) + above(self, seconds=0)


class Timer:
    """Wall and CPU seconds since it was made."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), self._cpu()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, self._cpu() - self.cpu

    @staticmethod
    def _cpu() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime


def make_env(case: Case, key) -> host.HostEnvironment:
    """The simulators of one actor."""
    num_envs = case.num_envs // case.num_actors
    seed = int(jax.random.bits(key)) >> 1
    return host.make(case.env_name, num_envs, seed, backend=case.backend)


def alone(case: Case, seconds: float) -> dict[str, float]:
    """Random actions, one thread for each actor, nothing else."""
    keys = jax.random.split(random.key(0), case.num_actors)
    envs = [make_env(case, key) for key in keys]
    counts, stop = [0] * len(envs), threading.Event()
    # Its timer starts when all have been reset, which takes seconds on Atari.
    ready = threading.Barrier(len(envs) + 1)

    def work(i: int) -> None:
        env, rng = envs[i], np.random.default_rng(i)
        assert isinstance(env.action_spec, Discrete)
        actions = rng.integers(env.action_spec.num_values, size=(64, env.num_envs))
        actions = actions.astype(np.int32)
        step, t = env.reset(), 0
        ready.wait()
        while not stop.is_set():
            counts[i] += int(np.sum(~np.asarray(step.last)))
            step, _, _ = env.step(actions[t % 64])
            t += 1

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(envs))]
    for worker in workers:
        worker.start()
    ready.wait()
    timer = Timer()
    time.sleep(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    wall, cpu = timer.read()
    for env in envs:
        env.close()
    return {"env_steps": sum(counts), "wall_seconds": wall, "cpu_seconds": cpu}


def make_network(case: Case, env: host.HostEnvironment) -> Network:
    """The network of the case."""
    if case.network is not None:
        return actor_critic(env.observation_spec, env.action_spec, case.network)
    inner = actor_critic(Box((49,)), env.action_spec, NetworkConfig(widths=()))

    def few(step: TimeStep) -> TimeStep:
        pixels = jnp.asarray(step.obs)[..., 6::12, 6::12, 0].astype(jnp.float32)
        return step._replace(obs=pixels.reshape(*step.first.shape, 49))

    return inner._replace(
        init=lambda key, step: inner.init(key, few(step)),
        apply=lambda params, carry, step: inner.apply(params, carry, few(step)),
        unroll=lambda params, carry, steps: inner.unroll(params, carry, few(steps)),
    )


def bridged(
    case: Case, seconds: float, schedule: Literal["free", "lockstep"]
) -> dict[str, Any]:
    """IMPALA: acting, moving and learning."""
    env = make_env(case, random.key(0))
    env.close()
    network = make_network(case, env)
    config = OptimizerConfig("rmsprop", learning_rate=6e-4, anneal=False)
    agent = impala(network, make_optimizer(config), ImpalaConfig())
    options = ThreadsConfig(num_actors=case.num_actors, schedule=schedule)
    engine = threads(
        agent, partial(make_env, case), case.unroll_length, options, data_mesh(1)
    )
    try:
        run = engine.init(random.key(0))
        run, _ = engine.advance(run, 4)
        before, timer = int(run.progress.env_steps), Timer()
        while timer.read()[0] < seconds:
            run, _ = engine.advance(run, 2)
        wall, cpu = timer.read()
        steps = int(run.progress.env_steps) - before
        report = engine.report()
    finally:
        engine.close()
    assert report is not None
    return {
        "env_steps": steps, "wall_seconds": wall, "cpu_seconds": cpu,
        "lag": report.lag(), "advice": report.advice(),
    }  # fmt: skip


def act_latency(num_envs: int, repetitions: int = 2000) -> float:
    """Median microseconds of a call, from numpy observations to numpy actions."""
    network = actor_critic(Box((8,)), Discrete(4), SMALL)
    agent = impala(network, make_optimizer(OptimizerConfig(anneal=False)))
    flags: Any = np.zeros(num_envs, bool)
    step = TimeStep(np.zeros((num_envs, 8), np.float32), flags, flags)
    state = jax.jit(agent.init)(random.key(0), step)
    calls = acting(agent, repetitions, num_actors=1)
    keys, _ = calls.plan(random.key(0), Count.zero(), np.int32(0))
    kept, times = calls.extras(state.params, (), step), []
    for _ in range(repetitions):
        started = time.perf_counter()
        action, _, kept = calls.act(state.params, (), kept, step, keys)
        np.asarray(action)
        times.append(time.perf_counter() - started)
    return median(times[repetitions // 10 :]) * 1e6


def main(args: Args) -> None:
    """Runs the cases, and prints."""
    chosen = {n: CASES[n] for n in args.cases if args.only in n}
    if args.json_line:
        case = next(iter(chosen.values()))
        print(json.dumps(bridged(case, args.seconds, args.schedule)))
        return
    table = Table(title=f"environment steps per second, {args.schedule} schedule")
    for name in ("case", "alone", "bridge", "share", "share of CPU", "target", "lag"):
        table.add_column(name, justify="left" if name == "case" else "right")
    results: dict[str, dict] = {}
    for name, case in chosen.items():
        pairs = [
            (alone(case, args.seconds), bridged(case, args.seconds, args.schedule))
            for _ in range(args.pairs)
        ]
        rates = {
            kind: [
                [half["env_steps"] / half[f"{kind}_seconds"] for half in pair]
                for pair in pairs
            ]
            for kind in ("wall", "cpu")
        }
        shares = {k: median(b / a for a, b in x) for k, x in rates.items()}
        results[name] = {"pairs": pairs, "shares": shares}
        table.add_row(
            name,
            *(f"{median(x[i] for x in rates['wall']):,.0f}" for i in (0, 1)),
            *(f"{shares[kind]:.2f}" for kind in ("wall", "cpu")),
            f"{case.target:.2f}" if case.target else "-",
            f"{median(pair[1]['lag'] for pair in pairs):.1f}",
        )
    latencies = {n: act_latency(n) for n in (1, 8, 32)}
    Console(width=110).print(table)
    for num_envs, microseconds in latencies.items():
        print(f"acting, {num_envs:2} environments: {microseconds:.0f} us")
    if args.output is not None:
        report = {"jax": jax.__version__, "cases": results, "act_us": latencies}
        args.output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    cli.configure_jax()
    main(cli.parse(Args))
