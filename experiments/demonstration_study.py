"""Demonstrations where rewards are rare: R2D3 over the share of them in a batch.

    python experiments/demonstration_study.py --num-seeds 3

An expert shows a few ways through an I-Maze, in which who explores at random finds the
right goal once in thousands of steps. Cases differ in the demonstration ratio and the
seed; ratio 0 is R2D2. The source has the same figure: Paine et al., arXiv:1909.01387,
figure 6.

Each case is kept: started again, the study goes on with what is missing. It writes
study.json and study.png, mean returns of greedy episodes at the end of training against
the ratio, with `--draw-only` from the cases that there are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli
from jaxrl_par.algorithms.dqn import DQNConfig
from jaxrl_par.cli.experts import EXPERT
from jaxrl_par.cli.replay import ReplayConfig
from jaxrl_par.errors import at_least
from jaxrl_par.networks import NetworkConfig, TransformerConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.r2d3 import Args as Method
from jaxrl_par.presets.r2d3 import make_agent
from jaxrl_par.replay import PriorityConfig


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/demonstration_study")
    """Folder of the results; those of other settings belong into another one."""
    ratios: tuple[float, ...] = (0.0, 1 / 256, 1 / 16, 1 / 4)
    num_seeds: int = 3
    num_points: int = 4
    """Evaluations of each run."""
    settings: Method = Method(
        env_name="IMaze-13x13",
        total_steps=40_960,
        unroll_length=40,
        network=NetworkConfig(
            widths=(64,),
            activation="relu",
            memory="gtrxl",
            memory_width=64,
            transformer=TransformerConfig(
                num_layers=1, memory_length=32, mlp_width=128, gate_bias=0.0
            ),
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, max_grad_norm=40.0),
        dqn=DQNConfig(gamma=0.95, n_step=3, exploration="ladder"),
        replay=ReplayConfig(
            capacity=51_200,
            min_size=6_400,
            batch_size=32,
            updates_per_step=16,
            prioritised=True,
            priorities=PriorityConfig(alpha=0.9, beta=0.6),
            demonstrations=EXPERT,
            demonstration_ratio=1 / 4,
        ),
    )
    """What all cases share; `replay.demonstration_ratio` is each one's own."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, num_points=1)
        if not self.ratios or not all(0 <= x < 1 for x in self.ratios):
            found.append(f"ratios must be numbers in [0, 1), got {self.ratios}")
        if self.settings.replay.demonstrations is None:
            found.append("settings.replay.demonstrations must be a folder or expert")
        if self.settings.topology != "compiled":
            found.append(
                f"settings.topology must be compiled here, got {self.settings.topology}"
            )
        return found


def run(args: Args) -> None:
    """Trains every case that is missing, and draws."""
    missing = [] if args.draw_only else planned(args)
    write(args.out, cli.kept_cases(args.out / "cases", missing), args.settings)


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for ratio in args.ratios:
        for seed in range(args.num_seeds):
            yield f"ratio-{ratio:.4f}-seed-{seed}", partial(trained, ratio, seed, args)


def trained(ratio: float, seed: int, args: Args) -> dict[str, Any]:
    """The curve of one ratio and seed."""
    given = {"demonstration_ratio": ratio} if ratio else {"demonstrations": None}
    settings = replace(
        args.settings, seed=seed, replay=replace(args.settings.replay, **given)
    )
    learner = cli.compose(settings, make_agent)
    per_point = settings.total_steps // (settings.rows_per_update * args.num_points)
    sizes = 1, args.num_points, max(per_point, 1)
    curve = cli.seed_curves(
        learner, settings, *sizes, evaluation_envs=50, first_seed=seed
    )
    points = [{"rows": x["rows"], "return": x["return"][0]} for x in curve]
    print(f"ratio {ratio:.4f}, seed {seed}: {points[-1]['return']:.2f}", flush=True)
    return {"ratio": ratio, "seed": seed, "curve": points}


def write(out: Path, results: list[dict[str, Any]], settings: Method) -> None:
    """Table, numbers and figure."""
    table = Table("ratio", "return of every seed", "median")
    rows = []
    for ratio in sorted({x["ratio"] for x in results}):
        cases = [x for x in results if x["ratio"] == ratio]
        returns = [x["curve"][-1]["return"] for x in cases]
        middle = median(returns)
        rows.append({"ratio": ratio, "return": returns, "median": middle})
        every = " ".join(f"{x:.2f}" for x in returns)
        table.add_row(f"{ratio:.4f}", every, f"{middle:.2f}")
    cli.write_study(out, settings, rows, results)
    draw(out, rows, settings)
    Console().print(table)


def draw(out: Path, rows: list[dict[str, Any]], settings: Method) -> None:
    """Every seed, and the median."""
    figure = Figure(figsize=(6.0, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([x["ratio"] for x in rows], [x["median"] for x in rows], linewidth=2)
    every = [(row["ratio"], score) for row in rows for score in row["return"]]
    axes.plot(*zip(*every, strict=True), "o", alpha=0.5)
    axes.set_xscale("symlog", base=2, linthresh=1 / 256)
    axes.set(xlabel="demonstration ratio (0: R2D2)", ylabel="greedy return")
    figure.suptitle(f"{settings.env_name}: every seed, and the median")
    figure.savefig(out / "study.png", dpi=120)


if __name__ == "__main__":
    cli.main(run, Args)
