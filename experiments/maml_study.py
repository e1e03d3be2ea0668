"""What a gradient gains in a new task: second order, first order, Reptile, over seeds.

    python experiments/maml_study.py --num-seeds 3

Parameters are learned from which adaptation is to begin, by five methods:

    maml         the exact gradient through the adaptation
    maml-action  the same, of which each action's own probability alone is known
    fomaml       the gradient after it, as if it had been constant
    reptile      towards where the adaptation led
    joint        all tasks together, without adapting

All play the same number of environment steps, in tasks of the same family, and differ
in nothing else; the seeds of each are a population, one program. Then, and on the way,
they adapt to tasks that are new to them. Started again, the study goes on with what is
missing. It writes study.json and study.png: mean returns after 0, 1, ... gradients,
with `--draw-only` from the cases that there are.
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

from jaxrl_par import cli, random
from jaxrl_par.axis import Axis
from jaxrl_par.errors import at_least
from jaxrl_par.loops.adaptation import returns_after
from jaxrl_par.presets.maml import Args as Method
from jaxrl_par.presets.maml import make_agent
from jaxrl_par.topologies.compiled import scanned
from jaxrl_par.topologies.population import population

Name = Literal["maml", "maml-action", "fomaml", "reptile", "joint"]
METHODS = get_args(Name)


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/maml_study")
    """Folder of the results; those of other settings belong into another one."""
    methods: tuple[Name, ...] = METHODS
    num_seeds: int = 3
    num_points: int = 6
    """Times that each run is tested."""
    num_tasks: int = 30
    """New ones in each test."""
    test_steps: int = 3
    """Gradients in a test, by the rate of training."""
    reptile_steps: int = 3
    """Those of Reptile's adaptation, which with one would be joint training."""
    settings: Method = Method(total_steps=3_600_000, num_envs=12)
    """What all cases share; its method is that of maml."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = ("num_seeds", "num_points", "num_tasks", "test_steps", "reptile_steps")
        found = at_least(self, **dict.fromkeys(counts, 1))
        if (topology := self.settings.topology) != "compiled":
            found.append(f"settings.topology must be compiled here, got {topology}")
        if (method := self.settings.adaptation.method) != "maml":
            found.append(f"method must be maml: methods says which, got {method}")
        return found


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args.out, cli.kept_cases(args.out / "cases", missing), args.settings)


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains it."""
    for method in args.methods:
        yield method, partial(trained, method, args)


def settings_of(method: str, args: Args) -> Method:
    """How the method trains."""
    usual = args.settings
    if method == "maml-action":
        return replace(usual, scores="action")
    adaptation: dict[str, Any] = {"method": method}
    if method == "joint":
        adaptation = {"method": "fomaml", "inner_rate": 0.0}
    elif method == "reptile":
        adaptation["inner_steps"] = args.reptile_steps
    return replace(usual, adaptation=replace(usual.adaptation, **adaptation))


def trained(method: str, args: Args) -> dict[str, Any]:
    """Returns after every number of gradients, of all seeds at once, on the way."""
    settings = settings_of(method, args)
    learner = cli.compose(settings, make_agent)
    env = settings.make_env(settings.num_envs)

    def make_program(values: Any):
        del values  # members differ in their seeds alone
        return settings.make_program(learner, env, Axis())

    program = population(make_program, {"seed": np.arange(args.num_seeds)}).program
    runs = jax.jit(program.init)(random.key(0))
    updates = settings.total_steps // (settings.rows_per_update * args.num_points)
    advance = jax.jit(scanned(program, max(updates, 1)), donate_argnums=0)
    tested = replace(args.settings.adaptation, inner_steps=args.test_steps)
    sizes = args.num_tasks, settings.episodes, settings.unroll_length
    test = returns_after(learner.actor, settings.tasks(), tested, *sizes)
    test = jax.jit(jax.vmap(test, (0, None)))
    curve = []
    for point in range(args.num_points + 1):
        if point:
            runs, _ = advance(runs)
        returns = test(runs.learner, random.key(10_000 + point))
        env_steps = [int(x) for x in _counts(runs.progress.env_steps)]
        means = np.mean(returns, axis=1).tolist()
        curve.append({"env_steps": env_steps, "returns": means})
        print(f"{method}: {_shown(means)}", flush=True)
    return {"method": method, "curve": curve}


def _counts(count: Any) -> Any:
    return np.asarray(count.millions, np.int64) * 1_000_000 + np.asarray(count.units)


def _shown(returns: list[list[float]]) -> str:
    """Before, and after each gradient, the median of the seeds."""
    return " -> ".join(f"{median(x):.2f}" for x in zip(*returns, strict=True))


def write(out: Path, results: list[dict[str, Any]], settings: Method) -> None:
    """Table, numbers and figure."""
    results = sorted(results, key=lambda x: METHODS.index(x["method"]))
    table = Table("method", "before", "after one gradient, every seed", "median of all")
    rows = []
    for result in results:
        last = result["curve"][-1]["returns"]
        before, after, *_ = zip(*last, strict=True)
        rows.append({"method": result["method"], "returns": last})
        shown = [" ".join(f"{x:.2f}" for x in seeds) for seeds in (before, after)]
        table.add_row(result["method"], *shown, _shown(last))
    cli.write_study(out, settings, rows, results)
    draw(out, results, settings)
    Console().print(table)


def draw(out: Path, results: list[dict[str, Any]], settings: Method) -> None:
    """Every seed as a thin line, and their median."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for result in results:
        curve = result["curve"]
        steps = [np.mean(x["env_steps"]) for x in curve]
        after_one = [[seed[1] for seed in x["returns"]] for x in curve]
        cli.draw_seeds(axes[0], steps, after_one, result["method"])
        last = np.transpose(curve[-1]["returns"])
        cli.draw_seeds(axes[1], range(len(last)), last, result["method"])
    axes[0].set(xlabel="environment steps", ylabel="return after one gradient")
    axes[1].set(xlabel="gradients in a new task", ylabel="return at the end")
    axes[1].set_xticks(range(len(results[0]["curve"][-1]["returns"][0])))
    axes[0].legend()
    figure.suptitle(f"{settings.env_name}, new tasks: every seed, and the median")
    figure.savefig(out / "study.png", dpi=120)


if __name__ == "__main__":
    cli.main(run, Args)
