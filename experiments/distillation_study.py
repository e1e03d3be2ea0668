"""What distillation is worth: four methods, and five ratios of updates, over seeds.

    python experiments/distillation_study.py --num-seeds 5

Trains every case from scratch, one after the other, and keeps each as soon as it is
done: started again, the study goes on with what is missing. At the end, or at any time
with `--draw-only`, it writes study.json, study.png (returns against environment steps
and against time) and ratios.png. Methods have the same actor and the same budget.

On a CPU the time is that which the process computed, so that other work on the machine
does not count; bind it to one core, and it is the wall time of that core alone:

    taskset -c 0 python experiments/distillation_study.py
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random
from jaxrl_par.errors import at_least
from jaxrl_par.presets.actor_learner_distillation import Args as Method
from jaxrl_par.presets.actor_learner_distillation import make_learner
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.training.comparison import to_json
from jaxrl_par.training.evaluation import evaluator

Name = Literal["distillation", "gtrxl", "asymmetric", "lstm"]
LABELS = {
    "distillation": "ALD (LSTM acts, GTrXL learns)",
    "gtrxl": "GTrXL-IMPALA",
    "asymmetric": "asymmetric actor-critic",
    "lstm": "LSTM-IMPALA",
}


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/distillation_study")
    """Folder of the results; those of another environment belong into another one."""
    methods: tuple[Name, ...] = get_args(Name)
    num_seeds: int = 5
    ratios: tuple[int, ...] = ()
    """DpRL: ratios of updates of the actor to those of the learner, to compare."""
    num_points: int = 60
    """Points of a curve, each the mean over the episodes that ended since the last."""
    settings: Method = field(default_factory=Method)
    """What all cases share."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, num_points=2, ratios=1)
        if self.settings.topology != "compiled":
            found.append(
                f"settings.topology must be compiled here, got {self.settings.topology}"
            )
        return found


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [
        (name, partial(trained, method, args.num_points))
        for name, method in ([] if args.draw_only else planned(args))
    ]
    results = cli.kept_cases(args.out / "cases", missing)
    write(args.out, results, args.settings)


def planned(args: Args) -> Iterator[tuple[str, Method]]:
    """Name and settings of every case, seed by seed."""
    usual = args.settings.distillation.updates_per_step
    for seed in range(args.num_seeds):
        wanted = [(method, usual) for method in args.methods]
        wanted += [("distillation", ratio) for ratio in args.ratios if ratio != usual]
        for method, ratio in wanted:
            distillation = replace(args.settings.distillation, updates_per_step=ratio)
            yield (
                f"{method}-{ratio}-{seed}",
                replace(
                    args.settings, method=method, seed=seed, distillation=distillation
                ),
            )


def trained(method: Method, num_points: int) -> dict[str, Any]:
    """Curve and evaluation of one case."""
    env = method.make_env(method.num_envs)
    learner = cli.compose(method, make_learner)
    program = compiled(learner, env, method.unroll_length)
    run = jax.jit(program.init)(random.key(method.seed))
    length = max(method.total_steps // (method.rows_per_update * num_points), 1)
    chunk = jax.jit(scanned(program, length), donate_argnums=0).lower(run).compile()
    curve = []
    wall, cpu = time.perf_counter(), time.process_time()
    while int(run.progress.env_steps) < method.total_steps:
        run, metrics = jax.block_until_ready(chunk(run))
        returns = metrics["episode_return"]
        ended = float(np.sum(returns.count))
        point = {
            "env_steps": int(run.progress.env_steps),
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "return": float(np.sum(returns.total)) / ended if ended else None,
        }
        for name in ("fresh_kl", "fresh_agreement", "entropy"):
            if name in metrics:
                mean = metrics[name]
                point[name] = float(np.sum(mean.total) / np.sum(mean.count))
        curve.append(point)
    env = method.make_env(20)
    play = jax.jit(evaluator(learner.actor, env, 5))
    evaluation = play(learner.params(run.learner), random.key(10_000 + method.seed))
    returns = np.asarray(evaluation.returns)
    last = curve[-1]
    print(
        f"{method.method}, DpRL {method.distillation.updates_per_step}, seed"
        f" {method.seed}: {returns.mean():.3f} after {last['env_steps']:,} steps in"
        f" {last['seconds']:.0f} s",
        flush=True,
    )
    return {
        "method": method.method,
        "dprl": method.distillation.updates_per_step,
        "seed": method.seed,
        "env_name": method.env_name,
        "evaluation": {
            "episodes": returns.size,
            "mean_return": float(returns.mean()),
            "mean_length": float(np.mean(evaluation.lengths)),
        },
        "curve": curve,
    }


def write(out: Path, results: list[dict[str, Any]], settings: Method) -> None:
    """Table, numbers and figures."""
    table = Table(
        "method", "DpRL", "evaluation of every seed", "median", "left plateau"
    )
    rows = []
    for method, ratio in sorted({(x["method"], x["dprl"]) for x in results}):
        mine = [x for x in results if (x["method"], x["dprl"]) == (method, ratio)]
        scores = [x["evaluation"]["mean_return"] for x in mine]
        left = [left_plateau(x["curve"]) for x in mine]
        rows.append(
            {
                "method": method,
                "dprl": ratio,
                "seeds": [x["seed"] for x in mine],
                "evaluations": scores,
                "median": median(scores),
                "steps_to_three_quarters": left,
                "steps_per_second": rates(mine, "seconds"),
                "steps_per_cpu_second": rates(mine, "cpu_seconds"),
            }
        )
        table.add_row(
            method,
            str(ratio),
            " ".join(f"{score:.2f}" for score in scores),
            f"{median(scores):.2f}",
            " ".join("never" if x is None else f"{x / 1e6:.2f} M" for x in left),
        )
    summary = {
        "settings": to_json(settings),
        "machine": cli.machine(),
        "rows": rows,
        "cases": results,
    }
    (out / "study.json").write_text(json.dumps(summary, indent=1))
    draw_methods(out, results, settings)
    draw_ratios(out, results, settings)
    Console().print(table)


def draw_methods(out: Path, results: list[dict[str, Any]], settings: Method) -> None:
    """Every method, over environment steps and over time."""
    usual = settings.distillation.updates_per_step
    on_cpu = jax.default_backend() == "cpu"
    clock = "cpu_seconds" if on_cpu else "seconds"
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for method, label in LABELS.items():
        mine = [x for x in results if (x["method"], x["dprl"]) == (method, usual)]
        for axis, unit in zip(axes, ("env_steps", clock), strict=True):
            draw(axis, mine, unit, label)
    axes[0].set(xlabel="environment steps", ylabel="mean return of episodes")
    axes[1].set(xlabel="CPU seconds of training" if on_cpu else "seconds of training")
    axes[0].legend()
    figure.suptitle(f"{settings.env_name}: every seed, and the median")
    figure.savefig(out / "study.png", dpi=120)


def draw_ratios(out: Path, results: list[dict[str, Any]], settings: Method) -> None:
    """Distillation by the actor's updates, where there are several numbers of them."""
    ratios = sorted({x["dprl"] for x in results if x["method"] == "distillation"})
    if len(ratios) > 1:
        figure = Figure(figsize=(6, 4.2), layout="constrained")
        axis = figure.subplots()
        for ratio in ratios:
            key = ("distillation", ratio)
            mine = [x for x in results if (x["method"], x["dprl"]) == key]
            draw(axis, mine, "env_steps", f"DpRL {ratio}")
        axis.set(xlabel="environment steps", ylabel="mean return of episodes")
        axis.set_title(f"{settings.env_name}: updates of the actor for each of learner")
        axis.legend()
        figure.savefig(out / "ratios.png", dpi=120)


def rates(results: list[dict[str, Any]], clock: str) -> list[float]:
    """Environment steps in a second of the clock, of every case."""
    ends = [x["curve"][-1] for x in results]
    return [end["env_steps"] / end[clock] for end in ends]


def left_plateau(curve: list[dict[str, Any]]) -> int | None:
    """Environment steps until the mean return first passes three quarters: half-way
    between a goal at random, 0.5, and the right one. Only for I-Maze."""
    for point in curve:
        if point["return"] is not None and point["return"] > 0.75:
            return point["env_steps"]
    return None


def draw(axis: Any, results: list[dict[str, Any]], unit: str, label: str) -> None:
    """Every seed as a thin line, and their median over one grid."""
    if not results:
        return
    lines = []
    for result in results:
        points = [x for x in result["curve"] if x["return"] is not None]
        lines.append([[x[unit] for x in points], [x["return"] for x in points]])
    grid = np.linspace(0, min(x[-1] for x, _ in lines), 200)
    middle = np.median([np.interp(grid, x, y) for x, y in lines], axis=0)
    (line,) = axis.plot(grid, middle, label=label, linewidth=2)
    for x, y in lines:
        axis.plot(x, y, color=line.get_color(), alpha=0.25, linewidth=0.8)


if __name__ == "__main__":
    cli.main(run, Args)
