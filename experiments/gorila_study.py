"""What Gorila's two rejections do, over numbers of bundles and seeds.

    python experiments/gorila_study.py --num-seeds 5

Bundles act with parameters that they have read when they began, and how long they take
is heavy-tailed: most are fast, and some hold gradients for very long. In
`topologies.delayed` that is data, so all methods and seeds are a population, one
program for each number of bundles:

    accept    all gradients are applied
    stale     those that are staler than `max_staleness` updates are refused
    outlying  those whose loss is far above those that the bundle has seen
    both      Gorila

All get the same schedules and starts, and differ in nothing else. What a bundle acted
stays in its replay, whatever becomes of the gradient, and counts as steps. The mean
staleness is the number of bundles less 1, so `max_staleness` is a multiple of it.

It writes gorila.json, which `--draw-only` takes as it is, and gorila.png: returns of
the last tenth of training. The table also has the shares that were refused.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random, training
from jaxrl_par.errors import at_least, problems
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.loops.outliers import OutlierConfig
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.presets import gorila
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.topologies.delayed import DelaysConfig, delayed
from jaxrl_par.topologies.population import Population, population
from jaxrl_par.training.rows import total

Name = Literal["accept", "stale", "outlying", "both"]
LABELS = {
    "accept": "all are applied",
    "stale": "stale ones refused",
    "outlying": "outlying ones refused",
    "both": "both refused: Gorila",
}
NEVER = 2**30
"""A bound that no staleness and no count of losses reaches."""


def usual() -> gorila.Args:
    """A small network: there are as many copies of it as bundles."""
    return gorila.Args(
        topology="delayed",
        total_steps=100_000,
        network=NetworkConfig(widths=(64, 64)),
        delays=DelaysConfig("heavy_tailed", tail=1.2, storage="copies"),
    )


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/gorila_study")
    """Folder of the results."""
    methods: tuple[Name, ...] = get_args(Name)
    num_bundles: tuple[int, ...] = (1, 4, 16, 64)
    num_seeds: int = 3
    envs_each: int = 2
    """Environments of a bundle."""
    rows_each: int = 2_560
    """Rows in the replay of a bundle."""
    staleness: float = 2.0
    """`max_staleness` for each bundle that there is."""
    settings: gorila.Args = field(default_factory=usual)
    """All else. Numbers of bundles and environments, and sizes of replays, are those
    above."""
    draw_only: bool = False
    """Train nothing."""

    def of(self, num_bundles: int) -> gorila.Args:
        """The settings for so many bundles."""
        given, bound = self.settings, round(self.staleness * num_bundles)
        return replace(
            given,
            num_envs=self.envs_each * num_bundles,
            replay=replace(given.replay, capacity=self.rows_each * num_bundles),
            workers=replace(
                given.workers,
                num_workers=num_bundles,
                staleness=StalenessConfig("reject", bound),
            ),
        )

    @property
    def chunk(self) -> int:
        """Turns of a compiled call."""
        rows = self.envs_each * self.settings.unroll_length
        return max(self.settings.total_steps // (50 * rows), 1)

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, envs_each=1, rows_each=1, staleness=0)
        if not self.methods:
            found.append("methods must name at least one")
        if not self.num_bundles or min(self.num_bundles) < 1:
            told = "num_bundles must be numbers from 1 on"
            found.append(f"{told}, got {self.num_bundles}")
        if self.settings.topology != "delayed":
            told = "settings.topology must be delayed"
            found.append(f"{told}, got {self.settings.topology}")
        if found:
            return found
        wrong = [line for n in self.num_bundles for line in problems(self.of(n))]
        return list(dict.fromkeys(wrong))


def run(args: Args) -> None:
    """Trains every case, and draws."""
    path = args.out / "gorila.json"
    if args.draw_only:
        if not path.exists():
            raise training.TrainingError(f"there are no results in {path}")
        results = json.loads(path.read_text())["cases"]
    else:
        results = [case for n in args.num_bundles for case in trained(n, args)]
        args.out.mkdir(parents=True, exist_ok=True)
        settings = asdict(args)
        del settings["out"], settings["draw_only"], settings["settings"]["training"]
        summary = {"settings": settings, "cases": results}
        path.write_text(json.dumps(summary, indent=1))
    draw(args.out, results)


def members(num_bundles: int, args: Args) -> Population:
    """A run for each method and seed."""
    given = args.of(num_bundles)
    learner = gorila.EXPERIMENT.learner(given)
    env = given.make_env(given.envs_each)
    schedule = given.delays.schedule(num_bundles, given.max_updates, given.seed)
    bound, outliers = given.workers.staleness.max_staleness, given.workers.outliers

    def make_program(values: dict[str, Any]):
        return delayed(
            learner,
            env,
            given.unroll_length,
            schedule,
            num_workers=num_bundles,
            storage=given.delays.storage,
            staleness=StalenessConfig("reject", values["max_staleness"]),
            outliers=OutlierConfig(
                "reject", outliers.num_deviations, values["warm_up"]
            ),
        )

    method = np.repeat(args.methods, args.num_seeds)
    stale, outlying = (np.isin(method, (x, "both")) for x in ("stale", "outlying"))
    return population(
        make_program,
        {
            "max_staleness": np.where(stale, bound, NEVER),
            "warm_up": np.where(outlying, outliers.warm_up, NEVER),
            "seed": np.tile(np.arange(args.num_seeds), len(args.methods)),
        },
    )


def trained(num_bundles: int, args: Args) -> list[dict[str, Any]]:
    """What came of each method and seed."""
    program = members(num_bundles, args).program
    runs = jax.jit(program.init)(random.key(0))
    call = jax.jit(scanned(program, args.chunk), donate_argnums=0)
    chunks = []
    num_members = len(args.methods) * args.num_seeds
    while total(runs.progress.env_steps) < args.settings.total_steps * num_members:
        runs, metrics = call(runs)
        chunks.append(jax.device_get(metrics))
    metrics = jax.tree.map(lambda *xs: np.concatenate(xs), *chunks)
    results = []
    for index, (method, seed) in enumerate(
        (method, seed) for method in args.methods for seed in range(args.num_seeds)
    ):
        own = jax.tree.map(lambda x, i=index: x[:, i], metrics)
        curve = tenths(own["episode_return"])
        results.append(
            {
                "method": method,
                "num_bundles": num_bundles,
                "seed": seed,
                "return": curve[-1],
                "curve": curve,
                "mean_lag": float(np.mean(own["lag"])),
                "max_lag": int(np.max(own["lag"])),
                "stale": float(np.mean(own["stale"])),
                "outlying": float(np.mean(own["outlying"])),
                "skipped": int(np.sum(own["skipped"])),
            }
        )
    print(f"{num_bundles} bundles: {len(results)} runs of {len(metrics['lag'])} turns")
    return results


def tenths(returns: Any) -> list[float | None]:
    """Mean returns of the episodes that ended in each tenth of training."""
    parts = (np.array_split(x, 10) for x in (returns.total, returns.count))
    sums = [(total.sum(), count.sum()) for total, count in zip(*parts, strict=True)]
    return [float(total / count) if count else None for total, count in sums]


def draw(out: Path, results: list[dict[str, Any]]) -> None:
    """Table and figure: every seed, and the median."""
    table = Table(
        "bundles", "method", "return of every seed", "median", "stale", "outlying"
    )
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.subplots()
    numbers = sorted({x["num_bundles"] for x in results})
    for method, label in LABELS.items():
        mine = [x for x in results if x["method"] == method and x["return"] is not None]
        medians = []
        for number in numbers:
            cases = [x for x in mine if x["num_bundles"] == number]
            scores = [x["return"] for x in cases]
            medians.append(np.median(scores) if scores else np.nan)
            shares = [
                f"{np.mean([x[name] for x in cases]):.1%}" if cases else "-"
                for name in ("stale", "outlying")
            ]
            told = " ".join(f"{score:.1f}" for score in scores)
            table.add_row(str(number), method, told, f"{medians[-1]:.1f}", *shares)
        if mine:
            (line,) = axis.plot(numbers, medians, label=label, linewidth=2)
            points = [(x["num_bundles"], x["return"]) for x in mine]
            color = line.get_color()
            axis.plot(*zip(*points, strict=True), "o", color=color, alpha=0.4)
    axis.set_xscale("log", base=2)
    axis.set(xlabel="bundles", ylabel="return, last tenth of training")
    axis.legend()
    figure.savefig(out / "gorila.png", dpi=120)
    Console().print(table)


if __name__ == "__main__":
    cli.main(run, Args)
