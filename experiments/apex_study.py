"""Ape-X against the number of actors, at a fixed rate of learning.

    python experiments/apex_study.py --num-seeds 3

Each case makes the same number of updates from a replay of the same size. What differs
is how many actors fill it, each with one environment and its rung of the ladder of
exploration: more of them show more of the environment, and what is replayed is newer.
Actors and learner take turns, in one program, so a case is the same whenever it is run;
its seeds are a population. Started again, the study goes on with what is missing. It
writes study.json and study.png: returns of greedy episodes against updates and against
actors, with `--draw-only` from the cases that there are.

After Horgan et al., arXiv:1803.00933, figure 5.
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
from jaxrl_par.errors import at_least, problems
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.presets.apex import Args as Method
from jaxrl_par.presets.apex import make_agent


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/apex_study")
    """Folder of the results; those of other settings belong into another one."""
    num_actors: tuple[int, ...] = (1, 4, 16, 64)
    num_seeds: int = 3
    num_updates: int = 8_000
    num_points: int = 12
    """Evaluations of each run."""
    settings: Method = replace(
        Method(),
        topology="compiled",
        env_name="Breakout-MinAtar",
        num_envs=64,
        unroll_length=8,
        network=NetworkConfig(torso="mlp", widths=(256, 128)),
        # All but as soon with one actor as with many.
        replay=replace(Method().replay, batch_size=64, min_size=512),
    )
    """What all cases share; num_envs are the most actors, and total_steps is not read.
    """
    draw_only: bool = False
    """Train nothing."""

    @property
    def steps_per_point(self) -> int:
        """Steps of training between two evaluations."""
        per_point = self.num_points * self.settings.replay.updates_per_step
        return max(self.num_updates // per_point, 1)

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, num_points=1, num_updates=1)
        if not self.num_actors or min(self.num_actors) < 1:
            found.append(f"num_actors must be numbers from 1 on, got {self.num_actors}")
        if self.settings.topology != "compiled":
            found.append(
                f"settings.topology must be compiled here, got {self.settings.topology}"
            )
        if found:
            return found
        return [
            f"with {number} actors: settings.{line}"
            for number in self.num_actors
            for line in problems(self.of(number))
        ]

    def of(self, num_actors: int) -> Method:
        """The settings of a case."""
        return replace(self.settings, num_envs=num_actors)


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for number in args.num_actors:
        yield f"actors-{number}", partial(trained, number, args)


def trained(num_actors: int, args: Args) -> dict[str, Any]:
    """Curves of one number of actors, of all seeds at once."""
    settings = args.of(num_actors)
    learner = cli.compose(settings, make_agent)
    sizes = args.num_seeds, args.num_points, args.steps_per_point
    curve = cli.seed_curves(learner, settings, *sizes)
    print(f"{num_actors} actors: {_told(cli.at_end(curve))}", flush=True)
    return {"num_actors": num_actors, "curve": curve}


def write(args: Args, results: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    results = sorted(results, key=lambda x: x["num_actors"])
    table = Table("actors", "rows acted", "return of every seed", "median")
    rows = []
    for result in results:
        ends, acted = cli.at_end(result["curve"]), result["curve"][-1]["rows"]
        row = {"num_actors": result["num_actors"], "rows": acted, "return": ends}
        rows.append(row | {"median": median(ends)})
        told = _told(ends), f"{median(ends):.1f}"
        table.add_row(str(result["num_actors"]), f"{acted:,}", *told)
    cli.write_study(args.out, args.settings, rows, results)
    draw(args, results)
    Console().print(table)


def draw(args: Args, results: list[dict[str, Any]]) -> None:
    """Curves, and their ends against the actors."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for result in results:
        curve = result["curve"]
        updates_per_row = args.settings.replay.updates_per_step / (
            result["num_actors"] * args.settings.unroll_length
        )
        updates = [x["rows"] * updates_per_row for x in curve]
        seeds = [x["return"] for x in curve]
        cli.draw_seeds(axes[0], updates, seeds, f"{result['num_actors']} actors")
    numbers = [x["num_actors"] for x in results]
    ends = [cli.at_end(x["curve"]) for x in results]
    axes[1].plot(numbers, [median(x) for x in ends], "k-")
    for number, values in zip(numbers, ends, strict=True):
        axes[1].plot([number] * len(values), values, "ko", alpha=0.4)
    axes[0].set(xlabel="updates", ylabel="mean return of greedy episodes")
    axes[1].set(xlabel="actors", ylabel="return, last fifth", xscale="log")
    axes[1].set_xticks(numbers, [str(x) for x in numbers])
    axes[1].minorticks_off()
    axes[0].legend()
    figure.suptitle(f"{args.settings.env_name}: every seed, and the median")
    figure.savefig(args.out / "study.png", dpi=120)


def _told(returns: list[float]) -> str:
    return " ".join(f"{x:.1f}" for x in returns)


if __name__ == "__main__":
    cli.main(run, Args)
