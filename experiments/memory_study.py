"""What memory is worth to Q-learning from replay: R2D2 beside DQN, over seeds.

    python experiments/memory_study.py --num-seeds 3

In an I-Maze the colour of the start says which of two goals pays, and neither goal is
worth more until both it and that colour are known: who forgets is right half of the
time. Methods differ in their memory:

    gtrxl   R2D2, with attention to the steps before
    lstm    R2D2, with an LSTM
    none    DQN, which reads single steps: as many of them in a batch

Each method and seed is a case, which is kept: started again, the study goes on with
what is missing. It writes study.json and study.png, mean returns of greedy episodes,
with `--draw-only` from the cases that there are.
"""

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
from jaxrl_par.algorithms.dqn import DQNConfig
from jaxrl_par.cli.replay import ReplayConfig
from jaxrl_par.errors import at_least
from jaxrl_par.networks import NetworkConfig, TransformerConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.r2d2 import Args as Method
from jaxrl_par.presets.r2d2 import make_agent
from jaxrl_par.replay import PriorityConfig

Name = Literal["gtrxl", "lstm", "none"]
METHODS = get_args(Name)


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/memory_study")
    """Folder of the results; those of other settings belong into another one."""
    methods: tuple[Name, ...] = METHODS
    first_seed: int = 0
    num_seeds: int = 3
    num_points: int = 10
    """Evaluations of each run."""
    settings: Method = Method(
        env_name="IMaze-9x9",
        total_steps=160_000,
        num_envs=16,
        unroll_length=40,
        sequence=None,
        network=NetworkConfig(
            widths=(64,),
            activation="relu",
            memory="gtrxl",
            memory_width=64,
            # With a bias of 2 a gate would begin with an eighth of what is remembered.
            transformer=TransformerConfig(
                num_layers=1, memory_length=32, mlp_width=128, gate_bias=0.0
            ),
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, max_grad_norm=40.0),
        dqn=DQNConfig(
            # With 0.997, a step lost costs less than the error of values: the greedy
            # policy wanders, and what it decides is too far from what it saw.
            gamma=0.95,
            n_step=3,
            anneal_steps=40_000,
        ),
        replay=ReplayConfig(
            capacity=51_200,
            min_size=6_400,
            batch_size=32,
            updates_per_step=8,
            prioritised=True,
            priorities=PriorityConfig(alpha=0.9, beta=0.6),
        ),
    )
    """What all cases share; `network.memory` is each method's own."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, first_seed=0, num_seeds=1, num_points=1)
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
    """Name of every case, and what trains it."""
    for method in args.methods:
        for seed in range(args.first_seed, args.first_seed + args.num_seeds):
            yield f"{method}-seed-{seed}", partial(trained, method, seed, args)


def trained(method: Name, seed: int, args: Args) -> dict[str, Any]:
    """The curve of one method and seed."""
    settings = with_memory(method, args.settings)
    learner = cli.compose(settings, make_agent)
    per_point = settings.total_steps // (settings.rows_per_update * args.num_points)
    sizes = 1, args.num_points, max(per_point, 1)
    curve = cli.seed_curves(
        learner, settings, *sizes, evaluation_envs=50, first_seed=seed
    )
    points = [{"rows": x["rows"], "return": x["return"][0]} for x in curve]
    print(f"{method}, seed {seed}: {points[-1]['return']:.2f}", flush=True)
    return {"method": method, "seed": seed, "curve": points}


def with_memory(method: Name, settings: Method) -> Method:
    """The settings of a method, with as many rows in a batch."""
    network = replace(settings.network, memory=method)
    if method != "none":
        return replace(settings, network=network)
    rows = settings.windows.trained(settings.unroll_length)
    batch_size = settings.replay.batch_size * rows
    start = replace(settings.dqn, start="stored", burn_in=0)
    replay = replace(settings.replay, batch_size=batch_size)
    return replace(settings, network=network, dqn=start, sequence=None, replay=replay)


def write(out: Path, results: list[dict[str, Any]], settings: Method) -> None:
    """Table, numbers and figure."""
    table = Table("memory", "return of every seed", "median")
    rows, curves = [], {}
    for method in METHODS:
        if cases := [x["curve"] for x in results if x["method"] == method]:
            curves[method] = cases
            returns = [curve[-1]["return"] for curve in cases]
            middle = median(returns)
            rows.append({"method": method, "return": returns, "median": middle})
            every = " ".join(f"{x:.2f}" for x in returns)
            table.add_row(method, every, f"{middle:.2f}")
    cli.write_study(out, settings, rows, results)
    draw(out, curves, settings)
    Console().print(table)


def draw(out: Path, curves: dict[str, Any], settings: Method) -> None:
    """Every seed as a thin line, and their median."""
    figure = Figure(figsize=(6.0, 3.8), layout="constrained")
    axes = figure.subplots()
    for method, cases in curves.items():
        rows = [point["rows"] for point in cases[0]]
        points = zip(*cases, strict=True)
        seeds = [[x["return"] for x in point] for point in points]
        cli.draw_seeds(axes, rows, seeds, method)
    axes.set(xlabel="rows of acting", ylabel="mean return of greedy episodes")
    axes.legend(title="memory")
    figure.suptitle(f"{settings.env_name}: every seed, and the median")
    figure.savefig(out / "study.png", dpi=120)


if __name__ == "__main__":
    cli.main(run, Args)
