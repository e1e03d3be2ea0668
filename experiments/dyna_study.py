"""What planning saves of real steps, and how much imagination is too much, over seeds.

    python experiments/dyna_study.py --num-seeds 5

In the textbook's maze: steps of each episode with n = 0, 5, 50 planned updates after
each real step, and with prioritised sweeping. On CartPole: deep Dyna-Q with different
shares of imagination, all else equal: as many updates for each real step, of as many
real windows, of which imagination takes its share of the gradient. Share 0 is DQN. Told
are the real steps until one greedy evaluation is at least 475, and the mean return of
all evaluations, which no lucky one decides. Started again, the study goes on with what
is missing. It writes study.json and study.png, with `--draw-only` from the cases that
there are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random
from jaxrl_par.algorithms.tabular import DynaConfig, constant, learned_by_dyna, maze
from jaxrl_par.envs.dyna_maze import LAYOUT
from jaxrl_par.errors import at_least, not_between
from jaxrl_par.presets import get
from jaxrl_par.presets.dyna import Args as Method

MAZE = {
    "n = 0": DynaConfig(num_planning=0),
    "n = 5": DynaConfig(num_planning=5),
    "n = 50": DynaConfig(num_planning=50),
    "sweeping, n = 5": DynaConfig("prioritised", 5, step_size=constant(1.0)),
}
"""Methods by name. Steps of 0.1 as in the textbook; sweeping goes all the way."""
EPISODES = 50
SOLVED = 475.0


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/dyna_study")
    """Folder of the results; those of other settings belong into another one."""
    shares: tuple[float, ...] = (0.0, 0.1, 0.5, 0.9, 1.0)
    """Of imagination. 0 is DQN."""
    num_seeds: int = 5
    first_seed: int = 0
    """On CartPole."""
    num_points: int = 40
    """Evaluations of each run."""
    settings: Method = Method()
    """What all shares have in common."""
    maze_seeds: int = 30
    maze_steps: int = 16_000
    """Real steps of each learner: enough for 50 episodes."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = dict.fromkeys(("num_seeds", "num_points"), 1)
        found = at_least(self, **counts, maze_seeds=1, maze_steps=1)
        found += not_between(self, shares=(0, 1))
        if self.settings.topology != "compiled":
            found.append(
                f"settings.topology must be compiled here, got {self.settings.topology}"
            )
        return found


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args, cli.kept_cases(args.out / "cases", missing))


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for number, name in enumerate(MAZE):
        yield f"maze_{number}", partial(walked, name, args)
    for share in args.shares:
        yield f"share_{share:g}", partial(trained, share, args)


def walked(name: str, args: Args) -> dict[str, Any]:
    """Steps of the first episodes in the maze, in the mean over learners; those that
    did not come so far do not count."""
    config, steps = MAZE[name], args.maze_steps

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        after, rows = learned_by_dyna(key, maze(LAYOUT), config, num_steps=steps)
        return rows.discount == 0, after.planned

    keys = jax.random.split(random.key(0), args.maze_seeds)
    ended, updates = jax.jit(jax.vmap(one))(keys)
    found = np.full((args.maze_seeds, EPISODES), np.nan)
    for row, ends in zip(found, np.asarray(ended), strict=True):
        lengths = np.diff(np.flatnonzero(ends)[:EPISODES], prepend=-1)
        row[: len(lengths)] = lengths
    known = [column[~np.isnan(column)] for column in found.T]
    told = [float(x.mean()) if len(x) else None for x in known]
    print(f"maze, {name}: {told[-1]} steps in episode {EPISODES}", flush=True)
    return {"maze": name, "steps": told, "updates": float(np.median(updates))}


def trained(share: float, args: Args) -> dict[str, Any]:
    """Curves of one share, of all seeds at once."""
    given = replace(args.settings.imagination, share=share)
    settings = replace(args.settings, imagination=given)
    per_point = settings.total_steps // (settings.rows_per_update * args.num_points)
    sizes = args.num_seeds, args.num_points, max(per_point, 1)
    learner = get("dyna").learner(settings)
    curve = cli.seed_curves(learner, settings, *sizes, first_seed=args.first_seed)
    last = curve[-1]["return"]
    print(f"share {share:g}: {' '.join(f'{x:.0f}' for x in last)}", flush=True)
    return {"share": share, "curve": curve}


def write(args: Args, results: list[dict[str, Any]]) -> None:
    """Table, numbers and figure."""
    walks = {x["maze"]: x for x in results if "maze" in x}
    deep = sorted((x for x in results if "share" in x), key=lambda x: x["share"])
    heads = f"real steps to {SOLVED:g}, every seed", "median", "mean of the run"
    table = Table("share", *heads, "at end")
    rows = [
        {"maze": name, **first_short(walks[name])} for name in MAZE if name in walks
    ]
    for case in deep:
        steps = until_solved(case["curve"])
        ends = float(np.median(cli.at_end(case["curve"])))
        means = of_the_run(case["curve"])
        row = {"share": case["share"], "steps": steps, "median": middle(steps)}
        rows.append(row | {"mean_returns": means, "median_at_end": ends})
        told = " ".join(map(str, steps)), str(middle(steps))
        shown = " ".join(f"{x:.0f}" for x in means)
        table.add_row(f"{case['share']:g}", *told, shown, f"{ends:.0f}")
    cli.write_study(args.out, args, rows, results)
    draw(args, walks, deep)
    Console().print(table)


def first_short(walk: dict[str, Any]) -> dict[str, Any]:
    """The first episode of at most 20 steps in the mean, and what led there."""
    steps = [np.inf if x is None else x for x in walk["steps"]]
    short = [i + 1 for i, x in enumerate(steps) if x <= 20]
    told = {"first": walk["steps"][0], "last": walk["steps"][-1]}
    return told | {"episode": short[0] if short else None}


def until_solved(curve: list[dict[str, Any]]) -> list[int | None]:
    """Of each seed, rows acted at its first evaluation of 475; None: never."""
    returns = np.array([point["return"] for point in curve])  # [points, seeds]
    found = []
    for seed in returns.T:
        solved = np.flatnonzero(seed >= SOLVED)
        found.append(int(curve[solved[0]]["rows"]) if len(solved) else None)
    return found


def of_the_run(curve: list[dict[str, Any]]) -> list[float]:
    """Of each seed, the mean return of all evaluations."""
    return np.mean([point["return"] for point in curve], axis=0).tolist()


def middle(steps: list[int | None]) -> int | None:
    """The median, in which never is more than any number."""
    ordered = sorted(steps, key=lambda x: np.inf if x is None else x)
    return ordered[(len(ordered) - 1) // 2]


def draw(args: Args, walks: dict[str, Any], deep: list[dict[str, Any]]) -> None:
    """The maze, the curves, and what comes of each share."""
    figure = Figure(figsize=(17, 4.2), layout="constrained")
    in_maze, over_time, to_solve, in_mean = figure.subplots(1, 4)
    for name in (x for x in MAZE if x in walks):
        steps = walks[name]["steps"]
        in_maze.plot(range(1, EPISODES + 1), [x or np.nan for x in steps], label=name)
    in_maze.axhline(14, color="black", linewidth=0.8)
    in_maze.set(xlabel="episode", ylabel="steps of the episode", yscale="log")
    in_maze.set_title(f"the maze, mean of {args.maze_seeds} learners")
    in_maze.legend()
    for case in deep:
        x = [point["rows"] for point in case["curve"]]
        seeds: Float[np.ndarray, "points seeds"]
        seeds = np.array([point["return"] for point in case["curve"]])
        over_time.plot(x, np.median(seeds, axis=1), label=f"{case['share']:g}")
    over_time.axhline(SOLVED, color="black", linewidth=0.8)
    over_time.set(xlabel="rows of acting", ylabel="greedy return, median of seeds")
    over_time.set_title(f"{args.settings.env_name}, by the share of imagination")
    if deep:
        over_time.legend(title="share")
    draw_shares(to_solve, in_mean, deep)
    figure.savefig(args.out / "study.png", dpi=120)


def draw_shares(to_solve: Any, in_mean: Any, deep: list[dict[str, Any]]) -> None:
    """Rows to 475 and the mean of the run, every seed and the median."""
    shares = [x["share"] for x in deep]
    never = 1.1 * max((case["curve"][-1]["rows"] for case in deep), default=1)
    solved = [until_solved(x["curve"]) for x in deep]
    rows = [[never if x is None else x for x in steps] for steps in solved]
    middles = [never if (m := middle(x)) is None else m for x in solved]
    means = [of_the_run(x["curve"]) for x in deep]
    medians = [np.median(x) for x in means]
    panels = (to_solve, rows, middles), (in_mean, means, medians)
    for axis, seeds, line in panels:
        for share, values in zip(shares, seeds, strict=True):
            axis.plot([share] * len(values), values, "o", color="C0", alpha=0.4)
        axis.plot(shares, line, color="C0")
        axis.set(xlabel="share of imagination")
    to_solve.axhline(never, color="grey", linestyle=":", linewidth=0.8)
    to_solve.set(ylabel=f"rows of acting to {SOLVED:g}")
    to_solve.set_title("every seed, and the median; dotted: never")
    in_mean.set(ylabel="greedy return, mean of all evaluations", ylim=(0, None))
    in_mean.set_title("every seed, and the median")


if __name__ == "__main__":
    cli.main(run, Args)
