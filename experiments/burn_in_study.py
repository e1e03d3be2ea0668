"""What the memory before a replayed sequence is worth: four ways to begin, over seeds.

    python experiments/burn_in_study.py --num-seeds 5

R2D2 learns from sequences that are shorter than what must be remembered, so that it
depends on the memory that they begin with:

    zero            none
    zero+burn-in    none, refreshed on the rows before
    stored          that of acting, with the parameters of then
    stored+burn-in  the same, refreshed on the rows before

All differ in nothing else, and the seeds of each are a population, one program. Started
again, the study goes on with what is missing. It writes study.json and study.png: mean
returns of greedy episodes, and how far values are from those with the memory of acting
(Delta Q of the last trained row), with `--draw-only` from the cases that there are.
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
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.presets.r2d2 import Args as Method
from jaxrl_par.presets.r2d2 import make_agent
from jaxrl_par.replay import PriorityConfig

Name = Literal["zero", "zero+burn-in", "stored", "stored+burn-in"]
METHODS = get_args(Name)
STALENESS = ("staleness_first", "staleness_last")


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/burn_in_study")
    """Folder of the results; those of other settings belong into another one."""
    methods: tuple[Name, ...] = METHODS
    num_seeds: int = 5
    num_points: int = 20
    """Evaluations of each run."""
    settings: Method = Method(
        env_name="MemoryChain-10",
        total_steps=60_000,
        num_envs=8,
        unroll_length=32,
        sequence=8,
        network=NetworkConfig(widths=(32,), memory="lstm", memory_width=32),
        dqn=DQNConfig(
            gamma=0.997,
            n_step=3,
            burn_in=8,
            rescale=1e-3,
            exploration="ladder",
            measure_staleness=True,
        ),
        replay=ReplayConfig(
            capacity=10_240,
            min_size=1_280,
            batch_size=32,
            updates_per_step=4,
            prioritised=True,
            priorities=PriorityConfig(alpha=0.9, beta=0.6),
        ),
    )
    """What all cases share; `dqn.burn_in` is that of those that have one."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, num_points=1)
        if not self.settings.dqn.burn_in:
            found.append("settings.dqn.burn_in must be at least 1, got 0")
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
        start, _, burned = method.partition("+")
        dqn = replace(
            args.settings.dqn,
            start=start,  # pyright: ignore
            burn_in=args.settings.dqn.burn_in if burned else 0,
            measure_staleness=True,
        )
        settings = replace(args.settings, dqn=dqn)
        yield method, partial(trained, method, settings, args)


def trained(method: str, settings: Method, args: Args) -> dict[str, Any]:
    """Curves of one method, of all seeds at once."""
    learner = cli.compose(settings, make_agent)
    per_point = settings.total_steps // (settings.rows_per_update * args.num_points)
    sizes, tells = (args.num_seeds, args.num_points, max(per_point, 1)), STALENESS
    curve = cli.seed_curves(learner, settings, *sizes, tells)
    last = curve[-1]["return"]
    print(f"{method}: {' '.join(f'{x:.2f}' for x in last)}", flush=True)
    return {"method": method, "curve": curve}


def write(out: Path, results: list[dict[str, Any]], settings: Method) -> None:
    """Table, numbers and figure."""
    results = sorted(results, key=lambda x: METHODS.index(x["method"]))
    table = Table("method", "return of every seed", "median", "Delta Q, first and last")
    rows = []
    for result in results:
        last = result["curve"][-1]
        stale = [median(last[name]) for name in STALENESS]
        middle = median(last["return"])
        rows.append({"method": result["method"], "median": middle} | last)
        table.add_row(
            result["method"],
            " ".join(f"{x:.2f}" for x in last["return"]),
            f"{middle:.2f}",
            " ".join(f"{x:.3f}" for x in stale),
        )
    cli.write_study(out, settings, rows, results)
    draw(out, results, settings)
    Console().print(table)


def draw(out: Path, results: list[dict[str, Any]], settings: Method) -> None:
    """Every seed as a thin line, and their median."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for result in results:
        rows = [x["rows"] for x in result["curve"]]
        for axis, name in zip(axes, ("return", "staleness_last"), strict=True):
            seeds = [x[name] for x in result["curve"]]
            cli.draw_seeds(axis, rows, seeds, result["method"])
    axes[0].set(xlabel="rows of acting", ylabel="mean return of greedy episodes")
    axes[1].set(xlabel="rows of acting", ylabel="Delta Q, last trained row")
    axes[1].set_yscale("log")
    axes[0].legend()
    figure.suptitle(f"{settings.env_name}: every seed, and the median")
    figure.savefig(out / "study.png", dpi=120)


if __name__ == "__main__":
    cli.main(run, Args)
