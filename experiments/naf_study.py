"""Asynchronous NAF against the number of collectors, in simulated robot time.

    python experiments/naf_study.py

A robot takes `step_ms` for a step, and for being brought back to its start, however
fast this machine is. Each of N collectors moves one, with the parameters that were the
newest where its episode began, and waits for nobody; all fill one replay. One trainer
goes on meanwhile, up to a cap of updates for a row. Time is data (`delayed`): a turn is
a robot's unroll, which is learned from at the newest parameters. Two trainers:

    keeps up   makes the cap of one update for each row, whatever the number of robots
    limited    makes one update in the time of a robot's step: with N robots one for N
               rows

What is shown is when the mean return of greedy episodes is first above `threshold` in
three evaluations in a row. It writes study.json and study.png: every seed, and the
median. After Gu et al., arXiv:1610.00633, section 6.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random
from jaxrl_par.algorithms.actor_critic import NAFConfig
from jaxrl_par.errors import above, at_least, problems
from jaxrl_par.loops import schedules
from jaxrl_par.presets.naf import Args as Method
from jaxrl_par.presets.naf import make_agent
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.topologies.delayed import delayed
from jaxrl_par.training.evaluation import evaluator

Trainer = Literal["keeps up", "limited"]
SHOWN = 40
"""The most evaluations of a curve that are kept."""


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/naf_study")
    """Folder of the results; those of other settings belong into another one."""
    num_collectors: tuple[int, ...] = (1, 2, 4)
    trainers: tuple[Trainer, ...] = get_args(Trainer)
    num_seeds: int = 8
    step_ms: float = 50.0
    """Milliseconds of a robot's step."""
    num_updates: int = 8_000
    """Of the trainer, in a run."""
    steps_per_point: int = 50
    """Steps of each robot between two evaluations."""
    threshold: float = -200.0
    """Mean return that is to be reached."""
    num_played: int = 50
    """Greedy episodes of an evaluation, with the same starts each time."""
    settings: Method = replace(
        Method(),
        pull="episode",
        num_envs=1,
        unroll_length=1,
        naf=NAFConfig(warm_up=800, noise=0.3),
        replay=replace(
            Method().replay, capacity=20_000, min_size=200, updates_per_step=1
        ),
    )
    """What all cases share; num_envs, unroll_length and total_steps are not read."""
    draw_only: bool = False
    """Train nothing."""

    @property
    def cases(self) -> list[tuple[int, Trainer]]:
        """(collectors, trainer): with one collector both trainers are the same."""
        return [
            (number, trainer)
            for number in self.num_collectors
            for trainer in self.trainers
            if number > 1 or trainer == self.trainers[0]
        ]

    def rows_each(self, num_collectors: int, trainer: Trainer) -> int:
        """Rows that a robot acts for one update."""
        return 1 if trainer == "keeps up" else num_collectors

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, num_updates=1, steps_per_point=1)
        found += at_least(self, num_played=1) + above(self, step_ms=0)
        for name in ("num_collectors", "trainers"):
            if not getattr(self, name):
                found.append(f"{name} must name at least one")
        found += at_least(self, num_collectors=1)
        for name, wanted in (("topology", "compiled"), ("pull", "episode")):
            if (value := getattr(self.settings, name)) != wanted:
                found.append(f"settings.{name} must be {wanted} here, got {value}")
        if found:
            return found
        return [
            f"with {number} collectors: settings.{line}"
            for number, trainer in self.cases
            for line in problems(self.of(number, trainer))
        ]

    def of(self, num_collectors: int, trainer: Trainer) -> Method:
        """The settings of a case, as those of one robot."""
        rows = self.rows_each(num_collectors, trainer)
        return replace(self.settings, num_envs=1, unroll_length=rows)


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for number, trainer in args.cases:
        name = f"{number}-{trainer.replace(' ', '-')}"
        yield name, partial(trained, number, trainer, args)


def trained(num_collectors: int, trainer: Trainer, args: Args) -> dict[str, Any]:
    """Returns of all seeds, a program, against seconds of the robots."""
    settings = args.of(num_collectors, trainer)
    learner = cli.compose(settings, make_agent)
    rows = settings.unroll_length
    busy = schedules.steady(args.num_updates, np.ones(num_collectors))
    program = delayed(
        learner,
        settings.make_env(1),
        rows,
        schedules.simulated(busy),
        num_workers=num_collectors,
        storage="copies",
        stale="data",
        share_data=True,
    )
    runs = jax.jit(jax.vmap(program.init))(
        jax.vmap(random.key)(jnp.arange(args.num_seeds))
    )
    each = max(args.steps_per_point // rows, 1)
    advance = jax.jit(
        jax.vmap(scanned(program, each * num_collectors)), donate_argnums=0
    )
    greedy = learner.actor._replace(act=learner.actor.greedy)
    played_in = settings.make_env(args.num_played)
    play = jax.jit(jax.vmap(evaluator(greedy, played_in, 1), (0, None)))
    seconds, returns = [], []
    for point in range(1, args.num_updates // (each * num_collectors) + 1):
        runs, _ = advance(runs)
        played = play(learner.params(runs.learner), random.key(10_000))
        seconds.append(point * each * rows * args.step_ms / 1000)
        means = np.asarray(played.returns, np.float64).mean(axis=(1, 2))
        returns.append(means.round(1).tolist())
    seeds = zip(*returns, strict=True)
    reached = [cli.first_above(args.threshold, seconds, x) for x in seeds]
    print(f"{num_collectors} collectors, {trainer}: {_told(reached)}", flush=True)
    some = slice(None, None, -(-len(seconds) // SHOWN))
    return {
        "num_collectors": num_collectors, "trainer": trainer, "seconds": reached,
        "times": seconds[some], "returns": returns[some],
    }  # fmt: skip


def write(args: Args, results: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    results = sorted(results, key=lambda x: (x["trainer"], x["num_collectors"]))
    alone = next((x for x in results if x["num_collectors"] == 1), None)
    table = Table(
        "trainer", "collectors", "seconds of every seed", "median", "times as fast",
        title=f"robot time to a return of {args.threshold:g}",
    )  # fmt: skip
    rows = []
    for x in results:
        middle = _median(x["seconds"])
        faster = _median(alone["seconds"]) / middle if alone else math.nan
        known = {n: x[n] for n in ("num_collectors", "trainer", "seconds")}
        known |= {"threshold": args.threshold, "step_ms": args.step_ms}
        known |= {"median": _finite(middle), "times_as_fast": _finite(faster)}
        rows.append(known)
        table.add_row(
            x["trainer"], str(x["num_collectors"]), _told(x["seconds"]),
            f"{middle:.0f}", f"{faster:.2f}",
        )  # fmt: skip
    cli.write_study(args.out, args.settings, rows, results)
    draw(args, results)
    Console(width=110).print(table)


def draw(args: Args, results: list[dict[str, Any]]) -> None:
    """Curves of the trainer that keeps up, and the times of both."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    curves, times = figure.subplots(1, 2)
    first = args.trainers[0]
    for result in results:
        if result["trainer"] == first:
            label = f"{result['num_collectors']} collectors"
            cli.draw_seeds(curves, result["times"], result["returns"], label)
    curves.axhline(args.threshold, color="gray", linewidth=0.8)
    curves.set(xlabel="seconds of the robots", ylabel="mean return of greedy episodes")
    curves.legend()
    for number, trainer in enumerate(args.trainers):
        mine = [x for x in results if x["trainer"] in (trainer, first)]
        mine = [x for x in mine if x["trainer"] == trainer or x["num_collectors"] == 1]
        numbers = [x["num_collectors"] for x in mine]
        middles = [_median(x["seconds"]) for x in mine]
        times.plot(numbers, middles, color=f"C{number}", label=f"trainer {trainer}")
        for x in mine:
            known = [y for y in x["seconds"] if y is not None]
            at = [x["num_collectors"]] * len(known)
            times.plot(at, known, "o", color=f"C{number}", alpha=0.4)
    reached = any(y is not None for x in results for y in x["seconds"])
    # A short run may have no time to show, and a logarithm is of numbers.
    times.set(xscale="log", yscale="log" if reached else "linear", xlabel="collectors")
    times.set(ylabel=f"seconds to a return of {args.threshold:g}")
    known = sorted({x["num_collectors"] for x in results})
    times.set_xticks(known, [str(x) for x in known])
    times.minorticks_off()
    times.legend()
    figure.suptitle(f"{args.settings.env_name}: every seed, and the median")
    figure.savefig(args.out / "study.png", dpi=120)


def _median(seconds: list[float | None]) -> float:
    return median(math.inf if x is None else x for x in seconds)


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _told(seconds: list[float | None]) -> str:
    return " ".join("-" if x is None else f"{x:.0f}" for x in seconds)


if __name__ == "__main__":
    cli.main(run, Args)
