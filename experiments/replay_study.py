"""What is drawn from replay, and how far targets look: four kinds of DQN, over seeds.

    python experiments/replay_study.py --num-seeds 3

Transitions are drawn alike or by priorities, and targets have one reward or several
before they bootstrap; all else is the same. The seeds of each case are a population,
one program. Started again, the study goes on with what is missing. It writes study.json
and study.png, with `--draw-only` from the cases that there are.
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
from jaxrl_par.cli.replay import ReplayConfig
from jaxrl_par.errors import at_least, problems
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.dqn import Args as Method
from jaxrl_par.presets.dqn import make_agent


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/replay_study")
    """Folder of the results; those of other settings belong into another one."""
    n_steps: tuple[int, ...] = (1, 3)
    num_seeds: int = 3
    num_points: int = 20
    """Evaluations of each run."""
    settings: Method = Method(
        env_name="Breakout-MinAtar",
        total_steps=1_000_000,
        num_envs=64,
        unroll_length=8,
        dueling=True,
        network=NetworkConfig(torso="mlp", widths=(256, 128)),
        optimizer=OptimizerConfig(learning_rate=5e-4, max_grad_norm=10.0),
        dqn=DQNConfig(polyak_rate=0.01, anneal_steps=250_000, epsilon_final=0.02),
        replay=ReplayConfig(capacity=102_400, min_size=10_240, updates_per_step=32),
    )
    """What all cases share; total_steps are counted in rows."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, num_points=1)
        if self.settings.topology != "compiled":
            found.append(
                f"settings.topology must be compiled here, got {self.settings.topology}"
            )
        for n_step in self.n_steps:
            own = problems(self.of(n_step, prioritised=True))
            found += [f"settings, with {n_step} steps: {line}" for line in own]
        return found

    def of(self, n_step: int, prioritised: bool) -> Method:
        """The settings of a case."""
        return replace(
            self.settings,
            dqn=replace(self.settings.dqn, n_step=n_step),
            replay=replace(self.settings.replay, prioritised=prioritised),
        )


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for n_step in args.n_steps:
        for prioritised in (False, True):
            name = f"{'prioritised' if prioritised else 'uniform'}, n = {n_step}"
            settings = args.of(n_step, prioritised)
            yield name, partial(trained, name, settings, args)


def trained(name: str, settings: Method, args: Args) -> dict[str, Any]:
    """Curves of one case, of all seeds at once."""
    learner = cli.compose(settings, make_agent)
    per_point = settings.total_steps // (settings.rows_per_update * args.num_points)
    sizes = args.num_seeds, args.num_points, max(per_point, 1)
    curve = cli.seed_curves(learner, settings, *sizes)
    print(f"{name}: {_told(cli.at_end(curve))}", flush=True)
    return {"name": name, "curve": curve}


def write(args: Args, results: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    table = Table("replay", "return of every seed, last fifth", "median")
    figure, rows = Figure(figsize=(7, 4.2), layout="constrained"), []
    axes = figure.subplots()
    for result in results:
        name, curve = result["name"], result["curve"]
        ends = cli.at_end(curve)
        rows.append({"name": name, "return": ends, "median": median(ends)})
        table.add_row(name, _told(ends), f"{median(ends):.1f}")
        seeds = [x["return"] for x in curve]
        cli.draw_seeds(axes, [x["rows"] for x in curve], seeds, name)
    axes.set(xlabel="rows of acting", ylabel="mean return of greedy episodes")
    axes.legend()
    axes.set_title(f"{args.settings.env_name}: every seed, and the median")
    figure.savefig(args.out / "study.png", dpi=120)
    cli.write_study(args.out, args.settings, rows, results)
    Console().print(table)


def _told(returns: list[float]) -> str:
    return " ".join(f"{x:.1f}" for x in returns)


if __name__ == "__main__":
    cli.main(run, Args)
