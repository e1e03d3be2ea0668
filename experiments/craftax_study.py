"""Achievements in Craftax-Classic on CPU: PPO over seeds, beside one that never learns.

    python experiments/craftax_study.py

All are members of one program, as that takes long to compile. The last one has a
learning rate of 0, and so acts nearly at random. A world is as costly to make as
several steps: each member makes one in a step, for whichever episode begins. An
achievement counts for an episode in which it was unlocked; what is shown are means over
the episodes that ended since the point before. Writes study.json.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

from jaxrl_par import cli, envs, random
from jaxrl_par.algorithms.ppo import ppo
from jaxrl_par.envs.resets import Resets
from jaxrl_par.errors import above, at_least
from jaxrl_par.loops import Program, epochs
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.topologies.compiled import compiled, scanned
from jaxrl_par.topologies.population import population
from jaxrl_par.training.files import make_folder

TASK = "craftax::Craftax-Classic-Symbolic-v1"
_PREFIX = "info_achieved_"


@dataclass(frozen=True)
class Args:
    """How much is trained, and where to write."""

    out: Path = Path("runs/craftax_study")
    """Folder of the results."""
    num_seeds: int = 3
    num_envs: int = 16
    unroll_length: int = 32
    steps_per_point: int = 20
    """Steps of training, of num_envs * unroll_length rows each."""
    num_points: int = 5
    learning_rate: float = 1e-3

    def problems(self) -> list[str]:
        """What is out of range."""
        counts = ("num_seeds", "num_envs", "unroll_length", "num_points")
        lowest = dict.fromkeys((*counts, "steps_per_point"), 1)
        return at_least(self, **lowest) + above(self, learning_rate=0)


def run(args: Args) -> None:
    """Trains, and writes."""
    write(args.out, args, trained(args))


def trained(args: Args) -> list[dict[str, Any]]:
    """For each point rows, and of every member the means of what was told."""
    env = envs.make(TASK, args.num_envs, resets=Resets("optimistic", per_step=1))
    network = actor_critic(*env.specs, NetworkConfig(widths=(128,), shared=True))

    def make_program(values: dict[str, Any]) -> Program:
        adam = optax.adam(values["learning_rate"])
        agent = ppo(network, optax.chain(optax.clip_by_global_norm(0.5), adam))
        learner = epochs(agent, num_epochs=4, num_minibatches=4)
        return compiled(learner, env, args.unroll_length)

    rates = np.full(args.num_seeds + 1, args.learning_rate, np.float32)
    rates[-1] = 0.0
    seeds = np.arange(args.num_seeds + 1)
    program = population(make_program, {"seed": seeds, "learning_rate": rates}).program
    runs = jax.jit(program.init)(random.key(0))
    advance = jax.jit(scanned(program, args.steps_per_point), donate_argnums=0)
    rows, points = args.steps_per_point * args.num_envs * args.unroll_length, []
    for point in range(1, args.num_points + 1):
        runs, metrics = advance(runs)
        points.append({"rows": point * rows} | _means(metrics))
        told = " ".join(f"{x:.2f}" for x in points[-1]["achievements"])
        print(f"{points[-1]['rows']} rows each: {told}", flush=True)
    return points


def _means(metrics: dict[str, Any]) -> dict[str, Any]:
    """Of every member, over its episodes; by achievement, and their number."""
    names = [x for x in metrics if x.startswith(_PREFIX)]
    shown = {x.removeprefix(_PREFIX): x for x in names}
    shown |= {"achievements": "info_achievements", "return": "episode_return"}
    sums = {x: [np.sum(y, axis=0) for y in metrics[name]] for x, name in shown.items()}
    means = {x: total / np.maximum(count, 1) for x, (total, count) in sums.items()}
    means["episodes"] = sums["return"][1]
    return {x: y.tolist() for x, y in means.items()}


def write(out: Path, args: Args, points: list[dict[str, Any]]) -> None:
    """The numbers, and a table of the last fifth."""
    last = points[-max(len(points) // 5, 1) :]
    names = [x for x in last[0] if x not in ("rows", "episodes")]
    ends = {x: np.mean([point[x] for point in last], axis=0).tolist() for x in names}
    *seeds, nothing = ends["achievements"]
    row = {"task": TASK, "achievements": seeds, "untrained": nothing}
    row |= {"rows": points[-1]["rows"], "by_achievement": ends}
    make_folder(out)
    cli.write_study(out, args, [row], points)
    shown = Table("achievement", *map(str, range(args.num_seeds)), "untrained")
    for name in sorted(names, key=lambda x: -max(ends[x])):
        shown.add_row(name, *(f"{x:.2f}" for x in ends[name]))
    Console().print(shown)


if __name__ == "__main__":
    cli.main(run, Args)
