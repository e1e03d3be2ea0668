"""Evolution strategies against the number of workers: the same results, sooner.

    python experiments/es_study.py

A member's fitness is the same whoever plays it, and so all numbers of workers learn the
same: one run tells how long the episodes of all members were, and time is simulated. A
step of an environment takes `step_ms`, the next member goes to the worker that is free
first, and a generation ends with its last episode and the step of the parameters. With
few workers the time falls as their number grows; then they wait for the longest
episodes, which a cap at some times the mean length shortens. Beside it is the line
of the paper, in which 80 times as many cores were 66 times as fast.

It writes study.json and study.png: every seed, and the median. After Salimans et al.,
arXiv:1703.03864, figure 1 and section 2.1.
"""

import heapq
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, envs, random, training
from jaxrl_par.algorithms.es import ESConfig, es
from jaxrl_par.errors import above, at_least
from jaxrl_par.loops import evolution
from jaxrl_par.networks import NetworkConfig, policy_network
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.types import Agent, Info

PAPER = [(18, 11 * 60.0), (1440, 10.0)]
"""Cores, and minutes to solve the humanoid, as the paper says."""


@dataclass(frozen=True)
class Args:
    """Which runs, and where to write."""

    out: Path = Path("runs/es_study")
    num_workers: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    caps: tuple[float, ...] = (0.0, 2.0)
    """Members' episodes are cut at so many times the mean length of the generation
    before. 0: nowhere."""
    num_members: int = 512
    num_generations: int = 40
    num_seeds: int = 3
    max_steps: int = 500
    step_ms: float = 2.0
    """Milliseconds of an environment step."""
    update_ms: float = 5.0
    """Milliseconds that all wait at the end of a generation: fitness is exchanged, and
    each worker takes the step for itself."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-2, anneal=False)
    network: NetworkConfig = NetworkConfig(widths=(32,))
    es: ESConfig = ESConfig()
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = ("num_members", "num_generations", "num_seeds", "max_steps")
        found = at_least(self, update_ms=0, **dict.fromkeys(counts, 1))
        found += above(self, step_ms=0)
        low = [x for x in self.num_workers if x < 1]
        found += [f"num_workers must be at least 1, got {x}" for x in low]
        found += [f"caps must be at least 0, got {x}" for x in self.caps if x < 0]
        for name in ("num_workers", "caps"):
            if not getattr(self, name):
                found.append(f"{name} must name at least one")
        return found


def run(args: Args) -> None:
    """Trains, simulates and draws."""
    path = args.out / "study.json"
    if args.draw_only:
        if not path.exists():
            raise training.TrainingError(f"there are no results in {path}")
        cases = json.loads(path.read_text())["cases"]
    else:
        cases = [case for cap in args.caps for case in studied(args, cap)]
        args.out.mkdir(parents=True, exist_ok=True)
        cli.write_study(args.out, args, summary(args, cases), cases)
    show(summary(args, cases))
    draw(args, cases)


def studied(args: Args, cap: float) -> list[dict[str, Any]]:
    """Simulated seconds of the whole run, for each seed and number of workers."""
    env = envs.make("CartPole-v1", 1)
    policy = policy_network(*env.specs, args.network)
    agent = telling(es(policy, make_optimizer(args.optimizer), args.es))
    program = evolution(
        *(agent, env, args.es.noise, args.num_members, args.max_steps),
        cap_factor=cap or None,
    )
    train = jax.jit(scanned(program, args.num_generations))
    cases = []
    for seed in range(args.num_seeds):
        metrics = jax.device_get(train(jax.jit(program.init)(random.key(seed)))[1])
        # Each step of CartPole pays 1.
        lengths = metrics["members"].reshape(args.num_generations, -1)
        total, count = metrics["episode_return"]
        for workers in args.num_workers:
            busy = sum(makespan(steps * args.step_ms, workers) for steps in lengths)
            waited = args.update_ms * args.num_generations
            cases.append(
                {
                    "cap": cap, "seed": seed, "workers": workers,
                    "seconds": (busy + waited) / 1000,
                    "return": float(total[-1] / count[-1]),
                }
            )  # fmt: skip
    return cases


def telling(agent: Agent) -> Agent:
    """The agent, whose metrics have the fitness of every member."""

    def prepare(state: Any, trajectory: Any, axis: Any) -> Any:
        return agent.prepare(state, trajectory, axis), trajectory.extras["fitness"]

    def grad(state: Any, batch: Any, key: Any, axis: Any) -> Any:
        grads, _ = agent.grad(state, batch[0], key, axis)
        return grads, Info({"members": batch[1]})

    return agent._replace(prepare=prepare, grad=grad)


def makespan(durations: np.ndarray, num_workers: int) -> float:
    """When the last is done, if each goes to the worker that is free first."""
    free = [0.0] * num_workers
    for duration in durations:
        heapq.heapreplace(free, free[0] + float(duration))
    return max(free)


def summary(args: Args, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over seeds, and how many times as fast as one worker that is."""
    rows = []
    for cap in args.caps:
        mine = [x for x in cases if x["cap"] == cap]
        alone = min(x["workers"] for x in mine)
        speed_ups = {
            workers: [
                _seconds(mine, x["seed"], alone) * alone / x["seconds"]
                for x in mine
                if x["workers"] == workers
            ]
            for workers in args.num_workers
        }
        rows += [
            {
                "cap": cap, "workers": workers, "speed_up": float(np.median(each)),
                "speed_ups": each, "efficiency": float(np.median(each)) / workers,
                "return": [x["return"] for x in mine if x["workers"] == workers],
            }
            for workers, each in speed_ups.items()
        ]  # fmt: skip
    return rows


def _seconds(cases: list[dict[str, Any]], seed: int, workers: int) -> float:
    wanted = seed, workers
    (one,) = (x["seconds"] for x in cases if (x["seed"], x["workers"]) == wanted)
    return one


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table."""
    table = Table(
        "cap", "workers", "times as fast", "efficiency", "return of each seed"
    )
    for row in rows:
        ends = " ".join(f"{x:.0f}" for x in row["return"])
        cells = f"{row['speed_up']:.1f}", f"{row['efficiency']:.2f}", ends
        table.add_row(f"{row['cap']:g}", str(row["workers"]), *cells)
    Console(width=88).print(table)


def draw(args: Args, cases: list[dict[str, Any]]) -> None:
    """Times as fast against workers, and the paper's line."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    rows = summary(args, cases)
    for cap in args.caps:
        mine = [row for row in rows if row["cap"] == cap]
        label = f"cap at {cap:g} times the mean" if cap else "no cap"
        x = [row["workers"] for row in mine]
        cli.draw_seeds(axes, x, np.array([row["speed_ups"] for row in mine]), label)
    ends = np.array([min(args.num_workers), max(args.num_workers)])
    axes.plot(ends, ends, color="gray", linestyle=":", label="linear")
    (few, slow), (many, fast) = PAPER
    slope = np.log(slow / fast) / np.log(many / few)
    axes.plot(ends, ends**slope, color="k", linestyle="--", label="the paper's cores")
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="times as fast")
    axes.legend()
    figure.savefig(args.out / "study.png", dpi=120)


if __name__ == "__main__":
    cli.main(run, Args)
