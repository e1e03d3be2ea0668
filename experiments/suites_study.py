"""A task of each suite that two cores learn in minutes, with PPO, over seeds.

    python experiments/suites_study.py --num-seeds 3

Each case is PPO with the settings below in place of its defaults, all seeds in one
program. The return before any update is that of a network that knows nothing, and acts
nearly at random among what is legal. A suite that is not installed is left out, and
said so. Started again, the study goes on with what is missing; `--draw-only` writes
study.json and study.png from the cases that there are.
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

from jaxrl_par import cli, envs, random
from jaxrl_par.algorithms.ppo import PPOConfig
from jaxrl_par.envs.suites import table
from jaxrl_par.errors import at_least, unknown_name
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets import ppo
from jaxrl_par.presets.ppo import Args as Settings
from jaxrl_par.training import TrainingConfig
from jaxrl_par.training.evaluation import evaluator

_LARGER = Settings(
    num_envs=64, unroll_length=64, num_minibatches=8, network=NetworkConfig(shared=True)
)
_BODY = Settings(
    num_envs=32,
    unroll_length=64,
    num_minibatches=8,
    normalize=True,
    optimizer=OptimizerConfig(learning_rate=1e-3),
    # Values of these are up to 100.
    ppo=PPOConfig(entropy_cost=0.0, clip_values=False),
)
TASKS = {
    "brax::inverted_pendulum": replace(_BODY, total_steps=300_000),
    "jumanji::Knapsack-v1": replace(
        _LARGER,
        total_steps=300_000,
        # Fifty things, of which each is packed once.
        training=TrainingConfig(evaluation_max_steps=51),
    ),
    "navix::Navix-Empty-5x5-v0": Settings(total_steps=100_000),
    # To the left without touching a wall. Bits of four screens are no image of one.
    "octax::cavern1": Settings(
        num_envs=32,
        total_steps=40_000,
        network=NetworkConfig(torso="mlp"),
        # Who waits is never caught.
        training=TrainingConfig(evaluation_max_steps=100),
    ),
    "pgx::tic_tac_toe": Settings(total_steps=200_000),
    # Cheaper entropy lets it play the same few games: see self_play_study.py.
    "pgx::tic_tac_toe-self-play": Settings(
        total_steps=200_000, ppo=PPOConfig(entropy_cost=0.4)
    ),
    "pgx::connect_four": replace(_LARGER, total_steps=200_000),
    "playground::CartpoleBalance": replace(_BODY, total_steps=200_000),
    "xland::MiniGrid-Empty-5x5": Settings(total_steps=100_000),
    "xland::MiniGrid-DoorKey-5x5": replace(_LARGER, total_steps=600_000),
}


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/suites_study")
    """Folder of the results; those of other settings belong into another one."""
    tasks: tuple[str, ...] = tuple(TASKS)
    num_seeds: int = 3
    first_seed: int = 0
    """Seeds are counted from there: others to choose settings than to show them."""
    num_points: int = 3
    """Evaluations of each run."""
    share: float = 1.0
    """Of the budget of each task: less to try the study."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, first_seed=0, num_points=1, share=0)
        unknown = [x for x in self.tasks if x not in TASKS]
        return found + [f"tasks: {unknown_name('task', x, TASKS)}" for x in unknown]


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args.out, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every task that can be made, and what trains its seeds."""
    for name in args.tasks:
        if envs.is_name(name):
            yield cli.in_a_path(name), partial(trained, name, args)
        else:
            print(f"left out: {table.refusal(name)}")


def trained(name: str, args: Args) -> dict[str, Any]:
    """Curves of one task, and the return before them."""
    settings = replace(TASKS[name], env_name=name)
    learner = cli.compose(settings, ppo.make_agent)
    updates = args.share * settings.total_steps / settings.rows_per_update
    steps = max(int(updates / args.num_points), 1)
    sizes = args.num_seeds, args.num_points, steps
    curve = cli.seed_curves(learner, settings, *sizes, first_seed=args.first_seed)
    before = untrained(learner, settings)
    last = cli.at_end(curve)
    told = " ".join(f"{x:.2f}" for x in last)
    print(f"{name}: {before:.2f}, then {told}", flush=True)
    return {"task": name, "before": before, "curve": curve}


def untrained(learner: Any, settings: Settings) -> float:
    """Mean return of 400 episodes of a network of the first seed, which is sampled."""
    env = settings.judged.make_env(200)
    most = settings.training.evaluation_max_steps
    play = jax.jit(evaluator(learner.actor, env, 2, most))
    _, step = env.reset(random.key(2))
    params = learner.params(learner.init(random.key(0), step))
    return float(np.nanmean(play(params, random.key(1)).returns))


def write(out: Path, results: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    results = sorted(results, key=lambda x: [*TASKS].index(x["task"]))
    shown = Table("task", "untrained", "greedy return of every seed", "median")
    figure = Figure(figsize=(4.0 * len(results), 3.2), layout="constrained")
    rows = []
    for axes, result in zip(
        figure.subplots(1, len(results), squeeze=False)[0], results, strict=True
    ):
        last, curve = cli.at_end(result["curve"]), result["curve"]
        row = {"task": result["task"], "before": result["before"], "last": last}
        rows.append(row | {"median": median(last), "rows": curve[-1]["rows"]})
        told = " ".join(f"{x:.2f}" for x in last)
        shown.add_row(
            result["task"], f"{result['before']:.2f}", told, f"{median(last):.2f}"
        )
        returns = [x["return"] for x in curve]
        cli.draw_seeds(axes, [x["rows"] for x in curve], returns, "PPO")
        axes.axhline(result["before"], color="gray", linestyle=":", label="untrained")
        axes.legend()
        axes.set(title=result["task"], xlabel="rows of acting", ylabel="greedy return")
    figure.savefig(out / "study.png", dpi=100)
    cli.write_study(out, {x: TASKS[x] for x in TASKS}, rows, results)
    Console().print(shown)


if __name__ == "__main__":
    cli.main(run, Args)
