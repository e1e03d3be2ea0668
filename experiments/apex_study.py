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

import json
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
from jaxrl_par.errors import at_least, problems
from jaxrl_par.presets.apex import Args as Method
from jaxrl_par.presets.apex import make_agent
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.population import population
from jaxrl_par.training.comparison import to_json
from jaxrl_par.training.evaluation import evaluator


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/apex_study")
    """Folder of the results; those of other settings belong into another one."""
    num_actors: tuple[int, ...] = (1, 4, 16, 64)
    num_seeds: int = 3
    num_updates: int = 12_000
    num_points: int = 12
    """Evaluations of each run."""
    settings: Method = replace(
        Method(),
        topology="compiled",
        env_name="Breakout-MinAtar",
        num_envs=64,
        unroll_length=8,
        replay=replace(Method().replay, batch_size=64, min_size=5_120),
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
    write(args.out, cli.kept_cases(args.out / "cases", missing), args.settings)


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for number in args.num_actors:
        yield f"actors-{number}", partial(trained, number, args)


def trained(num_actors: int, args: Args) -> dict[str, Any]:
    """Curves of one number of actors, of all seeds at once."""
    settings = args.of(num_actors)
    env = settings.make_env(num_actors)
    learner = cli.compose(settings, make_agent)

    def make_program(values):
        del values  # members differ in their seeds alone
        return compiled(learner, env, settings.unroll_length)

    program = population(make_program, {"seed": np.arange(args.num_seeds)}).program
    runs = jax.jit(program.init)(random.key(0))
    advance = jax.jit(scanned(program, args.steps_per_point), donate_argnums=0)
    greedy = learner.actor._replace(act=learner.actor.greedy)
    play = jax.jit(jax.vmap(evaluator(greedy, settings.make_env(16), 2), (0, None)))
    curve = []
    for point in range(1, args.num_points + 1):
        runs, _ = advance(runs)
        played = play(learner.params(runs.learner), random.key(10_000 + point))
        steps = point * args.steps_per_point
        curve.append(
            {
                "updates": steps * settings.replay.updates_per_step,
                "rows": steps * settings.rows_per_update,
                "return": np.mean(played.returns, axis=(1, 2)).tolist(),
            }
        )
    last = " ".join(f"{x:.1f}" for x in curve[-1]["return"])
    print(f"{num_actors} actors: {last}", flush=True)
    return {"num_actors": num_actors, "curve": curve}


def at_end(result: dict[str, Any]) -> list[float]:
    """Of each seed, the mean of the last fifth of its evaluations."""
    curve = [x["return"] for x in result["curve"]]
    return np.mean(curve[-max(len(curve) // 5, 1) :], axis=0).tolist()


def write(out: Path, results: list[dict[str, Any]], settings: Method) -> None:
    """Table, numbers and figure."""
    results = sorted(results, key=lambda x: x["num_actors"])
    table = Table("actors", "rows acted", "return of every seed", "median")
    rows = []
    for result in results:
        ends, acted = at_end(result), result["curve"][-1]["rows"]
        row = {"num_actors": result["num_actors"], "rows": acted, "return": ends}
        rows.append(row | {"median": median(ends)})
        told = " ".join(f"{x:.1f}" for x in ends), f"{median(ends):.1f}"
        table.add_row(str(result["num_actors"]), f"{acted:,}", *told)
    summary = {"settings": to_json(settings), "machine": cli.machine(), "rows": rows}
    text = json.dumps(summary | {"cases": results}, indent=1)
    (out / "study.json").write_text(text)
    draw(out, results, settings)
    Console().print(table)


def draw(out: Path, results: list[dict[str, Any]], settings: Method) -> None:
    """Curves, every seed as a thin line, and their ends against the actors."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for result in results:
        updates = [x["updates"] for x in result["curve"]]
        seeds = np.array([x["return"] for x in result["curve"]])
        label = f"{result['num_actors']} actors"
        (line,) = axes[0].plot(updates, np.median(seeds, axis=1), label=label)
        axes[0].plot(updates, seeds, color=line.get_color(), alpha=0.25, linewidth=0.8)
    numbers = [x["num_actors"] for x in results]
    ends = [at_end(x) for x in results]
    axes[1].plot(numbers, [median(x) for x in ends], "k-")
    for number, values in zip(numbers, ends, strict=True):
        axes[1].plot([number] * len(values), values, "ko", alpha=0.4)
    axes[0].set(xlabel="updates", ylabel="mean return of greedy episodes")
    axes[1].set(xlabel="actors", ylabel="return, last fifth", xscale="log")
    axes[1].set_xticks(numbers, [str(x) for x in numbers])
    axes[1].minorticks_off()
    axes[0].legend()
    figure.suptitle(f"{settings.env_name}: every seed, and the median")
    figure.savefig(out / "study.png", dpi=120)


if __name__ == "__main__":
    cli.main(run, Args)
