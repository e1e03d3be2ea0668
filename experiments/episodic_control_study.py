"""Episodic control against DQN, over seeds: who is faster, and where DQN is level.

    python experiments/episodic_control_study.py --num-seeds 5

MFEC, NEC and DQN have the same environments and the same evaluations, and each the
settings of its own preset. The seeds of each are a population, one program. Started
again, the study goes on with what is missing. It writes study.json and study.png: mean
returns of greedy episodes, their mean in the first steps, and the evaluation from which
on DQN's median is at least that of the others; with `--draw-only` from the cases that
there are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli
from jaxrl_par.algorithms.dqn import DQNConfig
from jaxrl_par.algorithms.episodic import MFECConfig, NECConfig
from jaxrl_par.errors import at_least
from jaxrl_par.presets import get
from jaxrl_par.presets.dqn import Args as DQNArgs
from jaxrl_par.presets.episodic_control import Args as EpisodicArgs

Name = Literal["mfec", "nec", "dqn"]
METHODS = get_args(Name)


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/episodic_control_study")
    """Folder of the results; those of other settings belong into another one."""
    methods: tuple[Name, ...] = METHODS
    env_name: str = "Catch-bsuite"
    total_steps: int = 60_000
    """Rows of acting."""
    first_steps: int = 50_000
    """Those in which it is compared who learns faster."""
    num_seeds: int = 5
    num_points: int = 24
    """Evaluations of each run."""
    mfec: MFECConfig = MFECConfig(capacity=1_000)
    nec: NECConfig = NECConfig(capacity=1_000)
    dqn: DQNConfig = DQNArgs.dqn
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, num_points=1, total_steps=1, first_steps=1)
        return found + cli.environment_problems(self.env_name)

    def settings(self, method: Name) -> EpisodicArgs | DQNArgs:
        """Those of a method."""
        args = DQNArgs() if method == "dqn" else EpisodicArgs(method=method)
        own: dict[str, Any] = {method: getattr(self, method)}
        return replace(
            args, env_name=self.env_name, total_steps=self.total_steps, **own
        )


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for method in args.methods:
        yield method, partial(trained, method, args)


def trained(method: Name, args: Args) -> dict[str, Any]:
    """Curves of one method, of all seeds at once."""
    settings = args.settings(method)
    learner = get("dqn" if method == "dqn" else "episodic_control").learner(settings)
    per_point = args.total_steps // (settings.rows_per_update * args.num_points)
    sizes = args.num_seeds, args.num_points, max(per_point, 1)
    curve = cli.seed_curves(learner, settings, *sizes)
    last = curve[-1]["return"]
    print(f"{method}: {' '.join(f'{x:.2f}' for x in last)}", flush=True)
    return {"method": method, "curve": curve}


def write(args: Args, results: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    results = sorted(results, key=lambda x: METHODS.index(x["method"]))
    told = f"return, mean of the first {args.first_steps:,} rows, of every seed"
    table = Table("method", told, "median", "at the end", "DQN is level from")
    curves = {x["method"]: x["curve"] for x in results}
    rows = []
    for method, curve in curves.items():
        early = [x["return"] for x in curve if x["rows"] <= args.first_steps]
        early = np.mean(early or [curve[0]["return"]], axis=0)
        level = reached(curves["dqn"], curve) if "dqn" in curves else None
        row = {"method": method, "first": early.tolist(), "dqn_level_from": level}
        rows.append(row | {"median_at_end": median(curve)[-1]})
        table.add_row(
            method,
            " ".join(f"{x:.1f}" for x in early),
            f"{np.median(early):.1f}",
            f"{median(curve)[-1]:.1f}",
            "" if method == "dqn" else f"{level:,} rows" if level else "never",
        )
    cli.write_study(args.out, args, rows, results)
    draw(args, curves, rows)
    Console().print(table)


def median(curve: list[dict[str, Any]]) -> list[float]:
    """The median of the seeds, of each evaluation."""
    return [float(np.median(x["return"])) for x in curve]


def reached(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> int | None:
    """Rows at the evaluation from which on the one's median is at least the other's."""
    level = np.array(median(one)) >= np.array(median(other))
    stays = np.logical_and.accumulate(level[::-1])[::-1]
    return int(one[int(np.argmax(stays))]["rows"]) if stays.any() else None


def draw(
    args: Args, curves: dict[str, list[dict[str, Any]]], rows: list[dict[str, Any]]
) -> None:
    """Every seed as a thin line, their median, and where DQN is level."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        curve, level = curves[row["method"]], row["dqn_level_from"]
        x, seeds = [p["rows"] for p in curve], [p["return"] for p in curve]
        label = row["method"].upper()
        if row["method"] != "dqn" and "dqn" in curves:
            where = f"at {level:,} rows" if level else "never"
            label = f"{label} (DQN is level {where})"
        cli.draw_seeds(axes, x, seeds, label)
        if level and row["method"] != "dqn":
            axes.axvline(level, color="grey", linewidth=0.8, linestyle=":")
    axes.axvline(args.first_steps, color="black", linewidth=0.8)
    axes.set(xlabel="rows of acting", ylabel="mean return of greedy episodes")
    axes.set_title(f"{args.env_name}: every seed, and the median")
    axes.legend()
    figure.savefig(args.out / "study.png", dpi=120)


if __name__ == "__main__":
    cli.main(run, Args)
