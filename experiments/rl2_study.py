"""RL^2 against the best that can be done: bandits of 10 and 100 pulls, tabular MDPs.

    python experiments/rl2_study.py --num-seeds 3

Beside what was learned stands who knows how tasks are drawn, as it is in
`jaxrl_par.testing.meta_learners`: the Bayes optimum of ten pulls, exactly; the Gittins
index of as many pulls as are left; posterior sampling of MDPs (PSRL), and who knows the
MDP. A mean clearly above the Bayes optimum would mean that the task leaks.

The seeds of each task are a population, one program. Started again, the study goes on
with what is missing. It writes study.json and study.png, with `--draw-only` from the
cases that there are. Returns are those of greedy trials, over new tasks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli
from jaxrl_par.algorithms.ppo import PPOConfig
from jaxrl_par.errors import at_least, not_between
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.rl2 import Args as Method
from jaxrl_par.presets.rl2 import make_agent
from jaxrl_par.testing import meta_learners

Task = Literal["Bandits-5x10", "Bandits-5x100", "RandomMDPs-10x10"]
TASKS = get_args(Task)
LONG = Method(
    num_envs=256,
    unroll_length=20,
    num_minibatches=4,
    optimizer=OptimizerConfig(learning_rate=3e-3),
)
SETTINGS = {
    "Bandits-5x10": Method(),
    "Bandits-5x100": replace(LONG, env_name="Bandits-5x100", total_steps=9_000_000),
    "RandomMDPs-10x10": replace(
        LONG,
        env_name="RandomMDPs-10x10",
        num_envs=192,
        unroll_length=34,
        total_steps=3_500_000,
        network=NetworkConfig(widths=(32,), memory="gru", memory_width=96),
        # Where next states are nearly alike, what pays at once is nearly all.
        ppo=PPOConfig(gamma=0.5, gae_lambda=0.9, entropy_cost=0.03, clip_values=False),
    ),
}
"""Those of the preset, but for trials of many steps."""


@dataclass(frozen=True)
class Args:
    """Which tasks, and where to write."""

    out: Path = Path("runs/rl2_study")
    """Folder of the results; those of other settings belong into another one."""
    tasks: tuple[Task, ...] = TASKS
    num_seeds: int = 3
    num_points: int = 5
    """Evaluations of each run."""
    num_trials: int = 4_000
    """Of each evaluation; half as many environments play two each. What one compares
    with has ten times as many, which cost little."""
    share: float = 1.0
    """Of the environment steps of each task."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, num_points=1, num_trials=2)
        return found + not_between(self, share=(0, 1))


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for task in args.tasks:
        settings = SETTINGS[task]
        steps = max(int(args.share * settings.total_steps), 1)
        yield task, partial(trained, replace(settings, total_steps=steps), args)


def trained(settings: Method, args: Args) -> dict[str, Any]:
    """Curves of all seeds at once, and the references."""
    learner = cli.compose(settings, make_agent)
    per_point = settings.total_steps // (settings.rows_per_update * args.num_points)
    sizes = args.num_seeds, args.num_points, max(per_point, 1)
    envs = max(args.num_trials // 2, 1)
    curve = cli.seed_curves(learner, settings, *sizes, evaluation_envs=envs)
    last = curve[-1]["return"]
    print(f"{settings.env_name}: {' '.join(f'{x:.2f}' for x in last)}", flush=True)
    known = references(settings.env_name, 10 * args.num_trials)
    return {"task": settings.env_name, "curve": curve, "references": known}


def references(task: str, num_trials: int) -> dict[str, tuple[float, float]]:
    """Mean return and its standard error of who knows how tasks are drawn."""
    family, _, sizes = task.partition("-")
    size, num_episodes = map(int, sizes.split("x"))
    if family == "RandomMDPs":
        given = size, 5, 10, num_episodes, num_trials
        return {
            "posterior sampling": _mean(meta_learners.posterior_sampling(*given)),
            "who knows the MDP": _mean(meta_learners.known_task(*given)),
            "at random": (10.0 * num_episodes, 0.0),
        }
    found = {"at random": (0.5 * num_episodes, 0.0)}
    if num_episodes <= 10:
        found["Bayes optimum"] = meta_learners.bayes_optimum(size, num_episodes), 0.0
    returns = meta_learners.gittins(size, num_episodes, num_trials)
    return found | {"Gittins index": _mean(returns)}


def _mean(returns: np.ndarray) -> tuple[float, float]:
    return float(np.mean(returns)), float(np.std(returns) / len(returns) ** 0.5)


def write(args: Args, results: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    results = sorted(results, key=lambda x: TASKS.index(x["task"]))
    table = Table("task", "return of every seed", "median", "error", "to compare")
    rows = []
    for result in results:
        last = result["curve"][-1]
        middle, error = median(last["return"]), max(last["error"])
        known = {name: mean for name, (mean, _) in result["references"].items()}
        row = {"task": result["task"], "median": middle, "references": known}
        rows.append(row | last)
        table.add_row(
            result["task"],
            " ".join(f"{x:.3f}" for x in last["return"]),
            f"{middle:.3f}",
            f"{error:.3f}",
            ", ".join(f"{name} {mean:.3f}" for name, mean in known.items()),
        )
    cli.write_study(args.out, args, rows, results)
    draw(args.out, results)
    Console().print(table)


def draw(out: Path, results: list[dict[str, Any]]) -> None:
    """Every seed as a thin line, their median, and the references."""
    figure = Figure(figsize=(4.6 * len(results), 3.8), layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for axis, result in zip(panels, results, strict=True):
        curve = result["curve"]
        rows = [x["rows"] for x in curve]
        cli.draw_seeds(axis, rows, [x["return"] for x in curve], "RL^2")
        for i, (name, (mean, _)) in enumerate(result["references"].items()):
            style = ("--", ":", "-.")[i]
            axis.axhline(mean, label=name, linewidth=1, color="black", linestyle=style)
        axis.set(title=result["task"], xlabel="rows of acting")
        axis.legend(fontsize="small")
    panels[0].set_ylabel("return of a trial")
    figure.savefig(out / "study.png", dpi=120)


if __name__ == "__main__":
    cli.main(run, Args)
