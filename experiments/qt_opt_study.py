"""QT-Opt: where data are from, how targets are made, and how many label them.

    python experiments/qt_opt_study.py --num-seeds 3

Three questions, each with everything else as in the preset:

    data      a script's data alone, those and its own tries, its own tries alone
    targets   single, double and clipped, from the script's data alone, where nothing
              corrects a value that is too high: what is said of the start of an
              episode, against what is then got, discounted
    updaters  Bellman updaters that label few rows each, at a fixed rate of training

Started again, the study goes on with what is missing. It writes study.json and
study.png, with `--draw-only` from the cases that there are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, random, rollout
from jaxrl_par.algorithms.qt_opt import best, nets_of
from jaxrl_par.errors import at_least, not_chosen
from jaxrl_par.loops import LabellingConfig, Learner
from jaxrl_par.networks import candidate_values
from jaxrl_par.presets import qt_opt
from jaxrl_par.presets.qt_opt import Args as Settings
from jaxrl_par.topologies.compiled import compiled, scanned

Part = Literal["data", "targets", "updaters"]
_ENVS = 256
"""Episodes of an evaluation."""
_STEPS_KEPT = 8
"""Steps of training whose labels are kept, where there are most updaters."""
_TARGETS = {
    "off policy single": "single",
    "off policy double": "double",
    "off policy": "clipped",
}


@dataclass(frozen=True)
class Args:
    """Which cases, and where to write."""

    out: Path = Path("runs/qt_opt_study")
    """Folder of the results; those of other settings belong into another one."""
    parts: tuple[Part, ...] = ("data", "targets", "updaters")
    num_seeds: int = 3
    num_points: int = 8
    """Evaluations of each run."""
    num_updaters: tuple[int, ...] = (1, 4, 16)
    labelled_rows: int = 16
    """Rows that an updater labels in a step of training."""
    settings: Settings = Settings()
    """What all share."""
    draw_only: bool = False
    """Train nothing."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_seeds=1, num_points=1, labelled_rows=1)
        found += at_least(self, num_updaters=1) + not_chosen(self)
        if self.settings.topology != "compiled":
            found.append(
                f"settings.topology must be compiled here, got {self.settings.topology}"
            )
        return found


def run(args: Args) -> None:
    """Trains what is missing, and draws all there is."""
    missing = [] if args.draw_only else planned(args)
    write(args.out, cli.kept_cases(args.out / "cases", missing), args.settings)


def planned(args: Args) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name of every case, and what trains its seeds."""
    for name, settings in cases(args).items():
        yield name.replace(" ", "-"), partial(trained, name, settings, args)


def cases(args: Args) -> dict[str, Settings]:
    """Settings by name; one case may be for two of the questions."""
    usual = args.settings
    alone = replace(usual, off_policy=True)
    found = {"both": usual} if "data" in args.parts else {}
    if {"data", "targets"} & {*args.parts}:
        found["off policy"] = alone
    if "data" in args.parts:
        own = replace(usual.replay, demonstrations=None)
        found["on policy"] = replace(usual, replay=own)
    if "targets" in args.parts:
        for target in ("single", "double"):
            other = replace(usual.qt_opt, target=target)
            found[f"off policy {target}"] = replace(alone, qt_opt=other)
    for number in args.num_updaters if "updaters" in args.parts else ():
        rows = number * args.labelled_rows
        most = max(args.num_updaters) * args.labelled_rows * _STEPS_KEPT
        labels = LabellingConfig(
            number, args.labelled_rows, capacity=most // rows * rows
        )
        settings = replace(usual, labels="updaters", labelling=labels)
        found[f"updaters {number}"] = settings
    return found


def trained(name: str, settings: Settings, args: Args) -> dict[str, Any]:
    """Curves of one case, seed by seed."""
    learner = cli.compose(settings, qt_opt.make_learner)
    program = compiled(
        learner, settings.make_env(settings.num_envs), settings.unroll_length
    )
    steps = settings.total_steps // settings.rows_per_update // args.num_points
    steps = max(steps, 1)
    start = jax.jit(program.init)
    advance = jax.jit(scanned(program, steps), donate_argnums=0)
    measure = jax.jit(measured(learner, settings))
    curves: dict[str, list[list[float]]] = {}
    for seed in range(args.num_seeds):
        now, curve = start(random.key(seed)), []
        for point in range(args.num_points):
            now, _ = advance(now)
            told = measure(learner.params(now.learner), random.key(10_000 + point))
            curve.append({name: float(x) for name, x in told.items()})
        for x in curve[0]:
            curves.setdefault(x, []).append([row[x] for row in curve])
        print(f"{name}, seed {seed}: {curve[-1]['success']:.2f}", flush=True)
    points = range(1, args.num_points + 1)
    rows = [point * steps * settings.rows_per_update for point in points]
    return {"case": name, "rows": rows, **curves}


def measured(learner: Learner, settings: Settings) -> Callable[..., dict[str, Any]]:
    """(params, key) -> means over greedy episodes: `success`; `said`, the value of the
    best action at their start; and `got`, the discounted return."""
    env = settings.make_env(_ENVS)
    values = candidate_values(*env.specs, settings.network)
    nets = nets_of(values, env.action_spec, settings.qt_opt)
    length = env.max_episode_steps or 1

    def act(params, carry, step, key):
        found = best(params, step, key, nets)
        said = jax.nn.sigmoid(found.value)
        return nets.units.action(found.unit), carry, {"said": said}

    def measure(params, key):
        agent = learner.actor._replace(act=act)
        played, _ = rollout.whole_episodes(agent, env, params, key, length)
        discounts = settings.qt_opt.gamma ** jnp.arange(length)
        got = jnp.sum(discounts[:, None] * played.reward, axis=0)
        return {
            "success": jnp.mean(
                jnp.any(played.reward > 0.0, axis=0), dtype=jnp.float32
            ),
            "said": jnp.mean(played.extras["said"][0]),
            "got": jnp.mean(got),
        }

    return measure


def at_end(curves: list[list[float]]) -> list[float]:
    """Of each seed, the mean over the last quarter of its evaluations."""
    last = max(len(curves[0]) // 4, 1)
    return [sum(curve[-last:]) / last for curve in curves]


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """What a case comes to."""
    success, said, got = (at_end(result[x]) for x in ("success", "said", "got"))
    over = [x - y for x, y in zip(said, got, strict=True)]
    row = {"case": result["case"], "success": success}
    row |= {"median_success": median(success), "overestimation": over}
    return row | {"median_overestimation": median(over)}


def write(out: Path, results: list[dict[str, Any]], settings: Settings) -> None:
    """Table, numbers and figure."""
    rows = [summary(result) for result in results]
    table = Table("case", "success of every seed", "median", "said - got")
    for row in rows:
        every = " ".join(f"{x:.2f}" for x in row["success"])
        told = f"{row['median_success']:.2f}", f"{row['median_overestimation']:+.3f}"
        table.add_row(row["case"], every, *told)
    figure = Figure(figsize=(12.0, 3.8), layout="constrained")
    data, targets, updaters = figure.subplots(1, 3)
    of_data = ("off policy", "both", "on policy")
    draw_curves(data, [x for x in results if x["case"] in of_data])
    draw_targets(targets, [x for x in rows if x["case"] in _TARGETS])
    draw_updaters(updaters, [x for x in rows if x["case"].startswith("updaters")])
    figure.savefig(out / "study.png", dpi=120)
    cli.write_study(out, settings, rows, results)
    Console().print(table)


def draw_curves(axes: Any, results: list[dict[str, Any]]) -> None:
    """Success of every seed, and the median."""
    for result in results:
        curves = list(map(list, zip(*result["success"], strict=True)))
        cli.draw_seeds(axes, result["rows"], curves, result["case"])
    axes.set(title="where data are from", xlabel="rows of acting", ylabel="success")
    if results:
        axes.legend()


def draw_targets(axes: Any, rows: list[dict[str, Any]]) -> None:
    """How much more is said than got: medians as bars, seeds as points."""
    for place, row in enumerate(rows):
        over = row["overestimation"]
        axes.bar(place, row["median_overestimation"], alpha=0.5)
        axes.plot([place] * len(over), over, "k.")
    axes.set_xticks(range(len(rows)), [_TARGETS[x["case"]] for x in rows])
    axes.set(title="value at the start, less what is got", ylabel="said - got")


def draw_updaters(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Success against their number: the median, and seeds as points."""
    found = {int(x["case"].split()[1]): x for x in rows}
    for number, row in found.items():
        axes.plot([number] * len(row["success"]), row["success"], "k.", alpha=0.5)
    numbers = sorted(found)
    axes.plot(numbers, [found[x]["median_success"] for x in numbers])
    axes.set(title="Bellman updaters", xlabel="number", ylabel="success")


if __name__ == "__main__":
    cli.main(run, Args)
