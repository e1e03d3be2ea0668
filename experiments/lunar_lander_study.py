"""Lecture 5's study: DQN, A3C and parallel deep Dyna-Q on LunarLander, by workers.

    python experiments/lunar_lander_study.py --num-seeds 3
    python experiments/lunar_lander_study.py --methods dyna --num-workers 2 \\
        --num-seeds 1 --total-steps 4000 --out runs/lander_small

Trains until the last 100 episodes have a mean return of `threshold`, or gives up. What
a worker is depends on the method, as it did there:

    dqn   a thread with environments and a replay of its own, whose gradients go to
          parameters that all share without a lock: parallel DQN with HogWild!
    a3c   the same without a replay
    dyna  one thread acts in the one real environment. Every other worker is a group of
          branches that a model imagines, so that there is none with a single one

LunarLander is a simulator, which no compiled program can step: beyond the cores of this
machine threads share them, and the figure has hollow points. Each case is kept as soon
as it is done: started again, the study goes on. It writes study.json and study.png:
episodes to solve, time to solve, time of an episode, speed-up, and the best mean return
of 100 episodes. A case that gives up has the numbers of its budget.

Source: Stone and Sachdev (2019), as lecture 5 reports it.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli
from jaxrl_par.algorithms.a2c import A2CConfig
from jaxrl_par.algorithms.dqn import DQNConfig
from jaxrl_par.cli.replay import ReplayConfig
from jaxrl_par.errors import at_least
from jaxrl_par.loops import ImaginationConfig
from jaxrl_par.loops.pace import PaceConfig
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets import a3c, dyna, get, gorila
from jaxrl_par.topologies.workers import WorkersConfig

Name = Literal["dqn", "a3c", "dyna"]
METHODS = get_args(Name)
ADAM = OptimizerConfig(learning_rate=5e-4, anneal=False, max_grad_norm=10.0)
PACE = PaceConfig(samples_per_insert=32.0, run_ahead=4)
"""Of dyna: as many real rows are learned from for each row acted as by dqn."""
PANELS = {
    "episodes": "episodes to solve",
    "seconds": "seconds to solve",
    "seconds_per_episode": "seconds an episode",
    "speed_up": "speed-up",
    "best_return": "best return",
}
"""The lecture's four, and the best mean of 100 episodes. Where all cases give up, the
first two are those of the budget."""


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/lunar_lander_study")
    """Folder of the results; those of other settings belong into another one."""
    methods: tuple[Name, ...] = METHODS
    num_workers: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    num_seeds: int = 3
    threshold: float = 200.0
    """Mean return at which the task is solved."""
    total_steps: int = 1_000_000
    """Environment steps after which a case gives up."""
    branches: int = 32
    """Imagined by each worker of dyna but the one that acts."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = ("num_seeds", "num_workers", "branches", "total_steps")
        return at_least(self, **dict.fromkeys(counts, 1))

    def settings(self, method: Name, workers: int, seed: int) -> cli.Args:
        """Those of a case."""
        given: dict[str, Any] = {"env_name": "LunarLander-v3", "seed": seed}
        given |= {"total_steps": self.total_steps}
        asynchronous = WorkersConfig(num_workers=workers, store="hogwild")
        if method == "a3c":
            return a3c.Args(
                num_envs=16 * workers,
                unroll_length=16,
                workers=asynchronous,
                optimizer=replace(ADAM, max_grad_norm=0.5),
                network=NetworkConfig(shared=False),
                a2c=A2CConfig(entropy_cost=0.02),
                **given,
            )
        if method == "dqn":
            rows = 4 * workers
            return gorila.Args(
                num_envs=workers,
                unroll_length=4,
                workers=asynchronous,
                optimizer=ADAM,
                dqn=DQNConfig(n_step=3, polyak_rate=0.01, anneal_steps=50_000),
                replay=ReplayConfig(
                    capacity=100_000 // rows * rows, min_size=2_000 // rows * rows
                ),
                **given,
            )
        imagination = ImaginationConfig(branches=self.branches * (workers - 1))
        usual = dyna.Args()
        return dyna.Args(
            topology="threads",
            num_envs=1,
            optimizer=ADAM,
            dqn=DQNConfig(polyak_rate=0.01, anneal_steps=50_000),
            imagination=imagination,
            threads=replace(usual.threads, pace=PACE),
            replay=replace(usual.replay, updates_per_step=8),
            **given,
        )


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for seed in range(args.num_seeds):
        for method in args.methods:
            for workers in args.num_workers:
                if method == "dyna" and workers == 1:
                    continue  # who acts does not imagine
                case = partial(trained, method, workers, seed, args)
                yield f"{method}-{workers}-{seed}", case


def trained(method: Name, workers: int, seed: int, args: Args) -> dict[str, Any]:
    """One case, until it is solved or gives up."""
    settings = args.settings(method, workers, seed)
    learner = get("gorila" if method == "dqn" else method).learner(settings)
    done = cli.until_solved(learner, settings, args.threshold)
    named = {"method": method, "num_workers": workers, "seed": seed}
    print(
        named, done["solved"], done["episodes"], f"{done['seconds']:.1f} s", flush=True
    )
    return named | {"cores": os.cpu_count()} | done


def write(args: Args, results: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    rows = summarized(results)
    heads = ("method", "workers", "solved", *PANELS.values())
    table = Table(*heads, title="LunarLander-v3: medians over seeds")
    for row in rows:
        numbers = [row[x] for x in PANELS]
        told = ["" if x is None else f"{x:,.2f}" for x in numbers]
        solved = f"{sum(row['solved'])} of {len(row['solved'])}"
        table.add_row(row["method"], str(row["num_workers"]), solved, *told)
    cli.write_study(args.out, args, rows, results)
    draw(args, rows)
    Console().print(table)


def summarized(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each method and number of workers, over the seeds. A case that gave up
    has the episodes and the time until then. Speed-up is that of the time, against the
    fewest workers of the method."""
    rows: list[dict[str, Any]] = []
    for method in METHODS:
        counts = {x["num_workers"] for x in results if x["method"] == method}
        first = None
        for number in sorted(counts):
            key = (method, number)
            mine = [x for x in results if (x["method"], x["num_workers"]) == key]
            seconds = median(x["seconds"] for x in mine)
            first = first or seconds
            each = [x["seconds"] / x["episodes"] for x in mine if x["episodes"]]
            best = [x["best_return"] for x in mine]
            rows.append(
                {
                    "method": method,
                    "num_workers": number,
                    "solved": [x["solved"] for x in mine],
                    "shares_cores": number > mine[0]["cores"] and method != "dyna",
                    "env_steps": median(x["env_steps"] for x in mine),
                    "episodes": median(x["episodes"] for x in mine),
                    "seconds": seconds,
                    "seconds_per_episode": median(each) if each else None,
                    "speed_up": first / seconds,
                    "best_returns": best,
                    "best_return": median(best) if None not in best else None,
                }
            )
    return rows


def draw(args: Args, rows: list[dict[str, Any]]) -> None:
    """A panel for each quantity, a line for each method."""
    figure = Figure(figsize=(17, 3.6), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for axis, (name, label) in zip(axes, PANELS.items(), strict=True):
        for method in METHODS:
            mine = [x for x in rows if x["method"] == method and x[name] is not None]
            (line,) = axis.plot(
                [x["num_workers"] for x in mine], [x[name] for x in mine],
                "o-", markerfacecolor="white", label=method,
            )  # fmt: skip
            # Filled where each worker has a core, or needs none.
            alone = [x for x in mine if not x["shares_cores"]]
            numbers = [x["num_workers"] for x in alone], [x[name] for x in alone]
            axis.plot(*numbers, "o", color=line.get_color())
        axis.set(xlabel="workers", ylabel=label, xscale="log")
        axis.set_xticks(args.num_workers, [str(n) for n in args.num_workers])
        axis.minorticks_off()
        if name != "best_return":
            axis.set_ylim(bottom=0)
    figure.axes[0].legend(fontsize=7)
    figure.suptitle(
        f"LunarLander-v3 to a mean return of {args.threshold:g}, or"
        f" {args.total_steps:,} steps"
    )
    figure.savefig(args.out / "study.png", dpi=120)


if __name__ == "__main__":
    cli.main(run, Args)
