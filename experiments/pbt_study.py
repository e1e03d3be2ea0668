"""Random search, successive halving and population-based training, at equal steps.

    python experiments/pbt_study.py --num-seeds 3

A2C with a learning rate, an entropy cost and a discount of its own for each member. All
methods take as many steps of training of all members together, and begin with the same
members: random search trains all to the end, so that its best is the best of fixed
hyperparameters; halving freezes those that do badly and trains the others longer; with
population-based training they copy the best and explore. At the end all members are
evaluated to choose the best one, and that one again, in other episodes.

Started again, the study goes on with what is missing. It writes study.json and
study.png: every seed, and what became of the hyperparameters of the first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random, training
from jaxrl_par.errors import at_least, problems
from jaxrl_par.loops.rungs import HalvingConfig, member_steps, rungs
from jaxrl_par.loops.selection import SelectionConfig
from jaxrl_par.presets import pbt, sweep
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.training import TrainingConfig
from jaxrl_par.training.loop import progress
from jaxrl_par.types import Mean

Name = Literal["random search", "halving", "pbt"]
SETTINGS = "learning_rate", "entropy_cost", "gamma"


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/pbt_study")
    """Folder of the results; those of other settings belong into another one."""
    methods: tuple[Name, ...] = get_args(Name)
    num_seeds: int = 3
    num_points: int = 20
    """Of each curve."""
    settings: pbt.Args = pbt.Args(
        total_steps=500_000,
        evolution=SelectionConfig(interval=25),
        training=TrainingConfig(log_interval=1),
    )
    """What all share; total_steps are rows of each member, in the mean."""
    halving: HalvingConfig = HalvingConfig(first=300, eta=2)
    """When members are frozen."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, num_points=1)
        for name in self.methods:
            found += [
                f"{name}: {x}" for x in problems(self.of(name, self.settings.seed))
            ]
        return found

    def of(self, name: Name, seed: int) -> pbt.Args:
        """The settings of a case."""
        made = replace(self.settings, seed=seed)
        if name == "pbt":
            return made
        made = replace(made, evolution=replace(made.evolution, interval=0))
        if name == "random search":
            return made
        total = self.num_updates * made.rows_per_update
        return replace(made, halving=self.halving, total_steps=total)

    @property
    def num_updates(self) -> int:
        """Those of the members that are trained longest by halving."""
        number, each = self.settings.num_members, self.settings.num_updates
        longest = each
        while True:
            found = rungs(number, longest + 1, self.halving)
            if member_steps(found, longest + 1) > number * each:
                return longest
            longest += 1


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for seed in range(args.settings.seed, args.settings.seed + args.num_seeds):
        for name in args.methods:
            yield f"{name}-{seed}", partial(trained, name, seed, args)


def trained(name: Name, seed: int, args: Args) -> dict[str, Any]:
    """Curves and ends of one population."""
    settings = args.of(name, seed)
    made = sweep.members(settings)
    learner = cli.compose(settings, sweep.make_agent)
    run = jax.jit(made.program.init)(random.key(seed))
    per_point = max(settings.num_updates // args.num_points, 1)
    advance = jax.jit(scanned(made.program, per_point), donate_argnums=0)
    curve = []
    for _ in range(args.num_points):
        run, metrics = advance(run)
        returns: Any = metrics["episode_return"]
        total, count = (np.sum(x, axis=0) for x in Mean(*returns))
        point = {
            "env_steps": progress(run)["env_steps"],
            "return": [
                float(x / n) if n else None for x, n in zip(total, count, strict=True)
            ],
        }
        point |= {x: np.asarray(run.settings[x]).tolist() for x in SETTINGS}
        curve.append(point)
    play = training.evaluator(learner.actor, settings.make_env(20), 2)
    params = learner.params(run.learner)
    chosen = jax.jit(jax.vmap(play, (0, None)))(params, random.key(10_000 + seed))
    means = np.asarray(chosen.returns.mean(axis=(1, 2)))
    best = jax.tree.map(lambda x: x[int(np.nanargmax(means))], params)
    again = training.evaluator(learner.actor, settings.make_env(50), 2)
    value = float(jax.jit(again)(best, random.key(20_000 + seed)).returns.mean())
    print(f"{name}, seed {seed}: best {value:.1f}, mean {means.mean():.1f}", flush=True)
    ends = {"best": value, "members": means.tolist()}
    return {"method": name, "seed": seed, "curve": curve} | ends


def write(args: Args, results: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    table = Table("method", "best of every seed", "median", "mean of the members")
    names = [x for x in get_args(Name) if any(y["method"] == x for y in results)]
    rows = []
    for name in names:
        mine = [x for x in results if x["method"] == name]
        best = [x["best"] for x in mine]
        means = [float(np.mean(x["members"])) for x in mine]
        rows.append(
            {"method": name, "best": best, "median": median(best), "means": means}
        )
        told = ", ".join(f"{x:.1f}" for x in best), ", ".join(f"{x:.1f}" for x in means)
        table.add_row(name, told[0], f"{median(best):.1f}", told[1])
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(SETTINGS))
    for number, name in enumerate(names):
        for case in (x for x in results if x["method"] == name):
            steps = [x["env_steps"] for x in case["curve"]]
            best = [max(y for y in x["return"] if y is not None) for x in case["curve"]]
            label = name if case["seed"] == args.settings.seed else None
            first.plot(steps, best, color=f"C{number}", label=label, linewidth=1)
    first.set(title="return of the best member", xlabel="steps of all members")
    first.legend()
    evolved = [x for x in results if x["method"] == "pbt"]
    for axes, name in zip(others, SETTINGS, strict=True):
        for case in evolved[:1]:
            values = np.array([x[name] for x in case["curve"]])
            steps = [x["env_steps"] for x in case["curve"]]
            axes.plot(steps, values, color="C2", alpha=0.5, linewidth=0.8)
        title = f"{name.replace('_', ' ')}, pbt, first seed"
        axes.set(title=title, yscale="linear" if name == "gamma" else "log")
    figure.savefig(args.out / "study.png", dpi=120)
    cli.write_study(args.out, args.settings, rows, results)
    Console().print(table)


if __name__ == "__main__":
    cli.main(run, Args)
