"""Demonstrations where rewards are rare: R2D3 over the share of them in a batch.

    python experiments/demonstration_study.py --num-seeds 3

An expert shows a few ways through an I-Maze, in which who explores at random finds the
right goal once in tens of thousands of steps. Runs differ in the demonstration ratio
and the seed; ratio 0 is R2D2. The source has the same figure: Paine et al.,
arXiv:1909.01387, figure 6.

It writes a file for each case, so that a study that was ended goes on, and
demonstrations.png: greedy returns at the end of training against the ratio.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli
from jaxrl_par.errors import at_least
from jaxrl_par.presets import r2d3
from jaxrl_par.training.settings import TrainingConfig


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/demonstration_study")
    """Folder of the results."""
    env_name: str = "IMaze-21x21"
    """An I-Maze of any odd size."""
    ratios: tuple[float, ...] = (0.0, 1 / 256, 1 / 64, 1 / 16, 1 / 4, 1 / 2)
    num_seeds: int = 3
    total_steps: int = 500_000
    """Environment steps of each run."""
    expert_steps: int = 2_000
    """Environment steps that the expert shows."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, total_steps=1, expert_steps=1)
        if not self.ratios or not all(0 <= x < 1 for x in self.ratios):
            found.append(f"ratios must be numbers in [0, 1), got {self.ratios}")
        return found + cli.environment_problems(self.env_name)


def run(args: Args) -> None:
    """Trains every case that is missing, and draws."""
    planned = [
        (f"ratio-{ratio:.4f}-seed-{seed}", partial(trained, args, ratio, seed))
        for ratio in args.ratios
        for seed in range(args.num_seeds)
    ]
    cases = cli.kept_cases(args.out / "cases", () if args.draw_only else planned)
    draw(args.out, cases)


def trained(args: Args, ratio: float, seed: int) -> dict[str, Any]:
    """What came of one ratio and seed."""
    experiment, usual = r2d3.EXPERIMENT, r2d3.Args()
    shown = {"demonstration_ratio": ratio, "expert_steps": args.expert_steps}
    settings = replace(
        usual,
        env_name=args.env_name,
        seed=seed,
        total_steps=args.total_steps,
        replay=replace(usual.replay, **(shown if ratio else {"demonstrations": None})),
        training=TrainingConfig(
            runs_dir=str(args.out / "runs"),
            name=f"ratio-{ratio:.4f}-seed-{seed}",
            tensorboard=False,
            gif=False,
        ),
    )
    results = experiment.run(settings).summary.evaluation
    return {"ratio": ratio, "seed": seed, "results": results}


def draw(out: Path, cases: list[dict[str, Any]]) -> None:
    """Table and figure: every seed, and the median."""
    table = Table("ratio", "greedy return of every seed", "median")
    ratios = sorted({case["ratio"] for case in cases})
    medians = []
    for ratio in ratios:
        scores = [score(case) for case in cases if case["ratio"] == ratio]
        medians.append(float(np.median(scores)))
        every = " ".join(f"{x:.2f}" for x in scores)
        table.add_row(f"{ratio:.4f}", every, f"{medians[-1]:.2f}")
    figure = Figure(figsize=(6.0, 3.8), layout="constrained")
    axis = figure.subplots()
    axis.plot(ratios, medians, linewidth=2)
    axis.plot([x["ratio"] for x in cases], [score(x) for x in cases], "o", alpha=0.5)
    axis.set_xscale("symlog", base=2, linthresh=1 / 256)
    axis.set(xlabel="demonstration ratio (0: R2D2)", ylabel="greedy return")
    figure.savefig(out / "demonstrations.png", dpi=120)
    Console().print(table)


def score(case: dict[str, Any]) -> float:
    """The mean return of greedy episodes."""
    return case["results"]["greedy_return"]


if __name__ == "__main__":
    cli.main(run, Args)
