"""PPG beside PPO, with the same network, budget and passes over a rollout, over seeds.

    python experiments/ppg_study.py --num-seeds 3

Methods differ in the auxiliary phases alone: PPO is PPG whose phases never come, its
policy and value apart as well. Started again, the study goes on with what is missing.
It writes study.json and study.png, with `--draw-only` from the cases that there are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random
from jaxrl_par.errors import at_least
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.presets import ppg, ppo
from jaxrl_par.presets.ppg import Args as Method
from jaxrl_par.presets.ppo import Args as PPOArgs
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.training.evaluation import evaluator

METHODS = ("ppo", "ppg")


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/ppg_study")
    """Folder of the results; those of other settings belong into another one."""
    num_seeds: int = 3
    num_points: int = 10
    """Evaluations of each run."""
    settings: Method = Method(total_steps=150_000)
    """What both share, and the phases of PPG."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, num_points=1)
        if self.settings.topology != "compiled":
            found.append(
                f"settings.topology must be compiled here, got {self.settings.topology}"
            )
        return found


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args.out, cli.kept_cases(args.out / "cases", missing), args.settings)


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every method, and what trains its seeds."""
    for method in METHODS:
        yield method, partial(trained, method, args)


def trained(method: str, args: Args) -> dict[str, Any]:
    """Curves of one method, seed by seed: a phase is rare, and vmapped over seeds it
    would be computed in every step."""
    settings, make_agent = args.settings, ppg.make_learner
    if method == "ppo":
        shared = ("env_name", "num_envs", "unroll_length", "total_steps", "optimizer")
        shared += ("num_epochs", "num_minibatches", "ppo")
        given = {name: getattr(settings, name) for name in shared}
        network: NetworkConfig = replace(settings.network, shared=False)
        settings, make_agent = PPOArgs(network=network, **given), ppo.make_agent
    learner = cli.compose(settings, make_agent)
    program = compiled(
        learner, settings.make_env(settings.num_envs), settings.unroll_length
    )
    steps = max(settings.total_steps // settings.rows_per_update // args.num_points, 1)
    greedy = learner.actor._replace(act=learner.actor.greedy)
    start, advance = jax.jit(program.init), jax.jit(scanned(program, steps))
    play = jax.jit(evaluator(greedy, settings.make_env(20), 2))
    curves = []
    for seed in range(args.num_seeds):
        now, curve = start(random.key(seed)), []
        for point in range(args.num_points):
            now, _ = advance(now)
            played = play(learner.params(now.learner), random.key(10_000 + point))
            curve.append(float(np.mean(played.returns)))
        curves.append(curve)
        print(f"{method}, seed {seed}: {curve[-1]:.1f}", flush=True)
    points = range(1, args.num_points + 1)
    rows = [point * steps * settings.rows_per_update for point in points]
    return {"method": method, "rows": rows, "returns": curves}


def write(out: Path, results: list[dict[str, Any]], settings: Method) -> None:
    """Table, numbers and figure."""
    results = sorted(results, key=lambda x: METHODS.index(x["method"]))
    table = Table("method", "greedy return of every seed", "median", "median of all")
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes, rows = figure.subplots(), []
    for result in results:
        last = [curve[-1] for curve in result["returns"]]
        means = [float(np.mean(curve)) for curve in result["returns"]]
        row = {"method": result["method"], "last": last, "mean": means}
        rows.append(row | {"median_last": median(last), "median_mean": median(means)})
        table.add_row(
            result["method"],
            " ".join(f"{x:.1f}" for x in last),
            f"{median(last):.1f}",
            f"{median(means):.1f}",
        )
        curves = np.transpose(result["returns"])
        cli.draw_seeds(axes, result["rows"], curves, result["method"])
    axes.set(xlabel="rows of acting", ylabel="greedy return")
    axes.legend()
    figure.suptitle(f"{settings.env_name}: every seed, and the median")
    figure.savefig(out / "study.png", dpi=120)
    cli.write_study(out, settings, rows, results)
    Console().print(table)


if __name__ == "__main__":
    cli.main(run, Args)
