"""What studies and benchmarks have in common: cases that are kept, curves of several
seeds, and the machine."""

import json
import os
import platform
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_par import random
from jaxrl_par.cli.args import Args
from jaxrl_par.loops import Learner
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.population import population
from jaxrl_par.training import provenance
from jaxrl_par.training.comparison import to_json
from jaxrl_par.training.evaluation import evaluator
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import make_folder, read_object, write_json

_VARIABLES = ("XLA_FLAGS", "OMP_NUM_THREADS", "NPROC")
_LIBRARIES = ("jax", "jaxlib", "flax", "gymnax", "numpy")


def kept_cases(
    folder: Path, planned: Iterable[tuple[str, Callable[[], dict[str, Any]]]]
) -> list[dict[str, Any]]:
    """Runs the cases that the folder lacks, and returns all that it has, by name.

    Each is written as soon as it is done: started again, a study goes on.

    Args:
      planned: names, and functions that run the case and return what JSON can hold.

    Raises:
      TrainingError: there is no case at all.
      FileError, DiskFullError: a case cannot be written, or one that was is damaged.
    """
    make_folder(folder)
    for name, run in planned:
        path = folder / f"{name}.json"
        if not path.exists():
            write_json(path, run())
    found = [read_object(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise TrainingError(f"no case has been trained in {folder}")
    return found


def seed_curves(
    learner: Learner,
    settings: Args,
    num_seeds: int,
    num_points: int,
    steps_per_point: int,
    tells: Collection[str] = (),
    evaluation_envs: int = 20,
    first_seed: int = 0,
) -> list[dict[str, Any]]:
    """Trains all seeds as a population, one program, and evaluates them on the way.

    Args:
      settings: of topology = compiled; its budget is not read. An episode of an
        evaluation is cut after `training.evaluation_max_steps`, if it has some.
      steps_per_point: steps of training before an evaluation.
      tells: metrics, means since the evaluation before.
      evaluation_envs: each plays two greedy episodes for an evaluation.
      first_seed: from where seeds are counted. Settings are chosen on other seeds than
        they are shown with.

    Returns:
      For each evaluation "rows" acted until then, and of every seed "return", the mean
      of its episodes, "error", the standard error of that, and the metrics.
    """
    env = settings.make_env(settings.num_envs)

    def make_program(values: Any):
        del values  # members differ in their seeds alone
        return compiled(learner, env, settings.unroll_length)

    seeds = np.arange(num_seeds) + first_seed
    program = population(make_program, {"seed": seeds}).program
    runs = jax.jit(program.init)(random.key(0))
    advance = jax.jit(scanned(program, steps_per_point), donate_argnums=0)
    greedy = learner.actor._replace(act=learner.actor.greedy)
    played_in = settings.judged.make_env(evaluation_envs)
    most = settings.training.evaluation_max_steps
    play = jax.jit(jax.vmap(evaluator(greedy, played_in, 2, most), (0, None)))
    curve = []
    for point in range(1, num_points + 1):
        runs, metrics = advance(runs)
        played = play(learner.params(runs.learner), random.key(10_000 + point))
        # Where the first of two episodes was cut, there is no other.
        told = {"return": np.nanmean(played.returns, axis=(1, 2)).tolist()}
        deviation = np.nanstd(played.returns, axis=(1, 2))
        count = np.isfinite(played.returns).sum(axis=(1, 2))
        told["error"] = (deviation / count**0.5).tolist()
        for name in tells:
            total, count = (np.sum(x, axis=0) for x in metrics[name])
            told[name] = (total / np.maximum(count, 1)).tolist()
        rows = point * steps_per_point * settings.rows_per_update
        curve.append({"rows": rows} | told)
    return curve


def at_end(curve: Sequence[dict[str, Any]]) -> list[float]:
    """Of each seed, the mean return of the last fifth of its evaluations."""
    last = curve[-max(len(curve) // 5, 1) :]
    return np.mean([x["return"] for x in last], axis=0).tolist()


def first_above(
    threshold: float, times: Sequence[float], values: Sequence[float], in_a_row: int = 3
) -> float | None:
    """When the first of so many values in a row is above the threshold; None if there
    are never so many."""
    count = 0
    for number, value in enumerate(values):
        count = count + 1 if value > threshold else 0
        if count == in_a_row:
            return times[number + 1 - in_a_row]
    return None


def draw_seeds(axes: Any, x: Sequence[float], seeds: Any, label: str) -> None:
    """Every seed as a thin line, and their median.

    Args:
      axes: of matplotlib.
      seeds: [len(x), num_seeds]
    """
    (line,) = axes.plot(x, np.median(seeds, axis=1), label=label, linewidth=2)
    axes.plot(x, seeds, color=line.get_color(), alpha=0.25, linewidth=0.8)


def write_study(
    folder: Path, settings: Any, rows: Sequence[Any], cases: Sequence[Any]
) -> None:
    """Writes study.json: what the cases come to, the cases, settings and machine."""
    summary = {"settings": to_json(settings), "machine": machine(), "rows": rows}
    text = json.dumps(summary | {"cases": cases}, indent=1)
    (folder / "study.json").write_text(text)


def machine() -> dict[str, Any]:
    """What this ran on, and with what: to be written beside figures."""
    return {
        **provenance.machine(),
        "environment": {name: os.environ.get(name, "") for name in _VARIABLES},
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _LIBRARIES},
    }
