"""Evolution strategies of a network of images, with virtual batch normalisation and
without, over seeds.

    python experiments/es_reference_study.py --num-seeds 3

All else is equal: members, noise, optimizer and keys. Started again, the study goes on
with what is missing. It writes study.json and study.png, with `--draw-only` from the
cases that there are. After Salimans et al., arXiv:1703.03864, section 2.2.
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
from jaxrl_par.axis import Axis
from jaxrl_par.errors import at_least, problems
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.presets import es
from jaxrl_par.presets.es import Args as Method
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.training.comparison import to_json
from jaxrl_par.training.evaluation import evaluator


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/es_reference_study")
    """Folder of the results; those of other settings belong into another one."""
    reference_rows: tuple[int, ...] = (0, 64)
    """Observations over which layers are normalised. 0: they are as they are."""
    num_seeds: int = 3
    first_seed: int = 0
    num_generations: int = 40
    num_points: int = 10
    """Evaluations of each run."""
    episodes: int = 100
    """Greedy ones of each evaluation."""
    settings: Method = Method(
        env_name="Breakout-MinAtar",
        unroll_length=200,
        network=NetworkConfig(channels=4, widths=(16,), activation="relu"),
    )
    """What all share; its budget and its reference_rows are not read."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, num_points=1, episodes=1, first_seed=0)
        found += at_least(self, num_generations=self.num_points)
        if not self.reference_rows:
            found.append("reference_rows must name at least one")
        if self.settings.topology != "compiled":
            found.append(
                f"settings.topology must be compiled here, got {self.settings.topology}"
            )
        return found + [
            f"reference_rows = {number}: {x}"
            for number in self.reference_rows
            for x in problems(self.of(number))
        ]

    def of(self, reference_rows: int) -> Method:
        """The settings of a case."""
        config = replace(self.settings.es, reference_rows=reference_rows)
        return replace(self.settings, es=config)


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for seed in range(args.first_seed, args.first_seed + args.num_seeds):
        for number in args.reference_rows:
            yield f"{number}-{seed}", partial(trained, args, number, seed)


def trained(args: Args, reference_rows: int, seed: int) -> dict[str, Any]:
    """The curve of one seed."""
    settings = args.of(reference_rows)
    learner = cli.compose(settings, es.make_agent)
    env = settings.make_env(settings.num_envs)
    program = settings.make_program(learner, env, Axis())
    per_point = args.num_generations // args.num_points
    advance = jax.jit(scanned(program, per_point), donate_argnums=0)
    greedy = learner.actor._replace(act=learner.actor.greedy)
    play = jax.jit(evaluator(greedy, settings.make_env(args.episodes), 1))
    now, curve = jax.jit(program.init)(random.key(seed)), []
    for point in range(args.num_points):
        now, _ = advance(now)
        played = play(learner.params(now.learner), random.key(10_000 + point))
        curve.append(float(np.mean(played.returns)))
    generations = [per_point * (point + 1) for point in range(args.num_points)]
    print(f"{reference_rows} rows, seed {seed}: {curve[-1]:.2f}", flush=True)
    case = {"reference_rows": reference_rows, "seed": seed}
    return case | {"generations": generations, "returns": curve}


def write(args: Args, cases: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    table = Table("reference rows", "greedy return of every seed", "median", "mean")
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes, rows = figure.subplots(), []
    for number in sorted({x["reference_rows"] for x in cases}):
        mine = [x for x in cases if x["reference_rows"] == number]
        last = [x["returns"][-1] for x in mine]
        means = [float(np.mean(x["returns"])) for x in mine]
        row = {"reference_rows": number, "last": last, "mean": means}
        rows.append(row | {"median_last": median(last), "median_mean": median(means)})
        ends = " ".join(f"{x:.2f}" for x in last)
        table.add_row(str(number), ends, f"{median(last):.2f}", f"{median(means):.2f}")
        label = f"{number} reference rows" if number else "layers as they are"
        curves = np.transpose([x["returns"] for x in mine])
        cli.draw_seeds(axes, mine[0]["generations"], curves, label)
    axes.set(xlabel="generations", ylabel="greedy return")
    axes.legend()
    figure.suptitle(f"{args.settings.env_name}: every seed, and the median")
    figure.savefig(args.out / "study.png", dpi=120)
    cli.write_study(args.out, to_json(args) | {"out": None}, rows, cases)
    Console().print(table)


if __name__ == "__main__":
    cli.main(run, Args)
