"""Population-based training of A2C: members copy each other, and explore.

Learning rate, entropy cost and discount of a member are those that it copied, changed a
little. `population.png` shows what became of them, a line for each member.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure

from jaxrl_par import cli
from jaxrl_par.cli import Flat
from jaxrl_par.loops import Learner
from jaxrl_par.loops.selection import SelectionConfig
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.sweep import Args as SweepArgs
from jaxrl_par.presets.sweep import make_agent, train
from jaxrl_par.training import Trained, TrainingConfig
from jaxrl_par.training.plots import save


@dataclass(frozen=True)
class Args(SweepArgs):
    """A random search whose members evolve."""

    kind: ClassVar[str] = "pbt"

    env_name: str = "Breakout-MinAtar"
    num_random: int = 16
    learning_rates: tuple[float, ...] = (1e-4, 1e-2)
    entropy_costs: tuple[float, ...] = (1e-4, 1e-1)
    gammas: tuple[float, ...] = (0.9, 0.999)
    total_steps: int = 2_000_000
    optimizer: OptimizerConfig = OptimizerConfig(anneal=False)
    network: NetworkConfig = NetworkConfig(torso="mlp", widths=(64,))
    evolution: SelectionConfig = SelectionConfig(interval=200)
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=100)


def train_and_draw(args: Args, learner: Learner) -> Trained:
    """Trains all members, and draws what became of their hyperparameters."""
    trained = train(args, learner)
    folder = trained.directory.path
    rows = [json.loads(x) for x in trained.directory.metrics.read_text().splitlines()]
    draw(rows, folder / "population.png")
    return trained


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Returns, ancestors and schedules, a line for each member in the colour of its
    last ancestor."""
    rows = [x for x in rows if "ancestor" in x]
    schedules = [x for x in rows[-1] if x.startswith("setting_")] if rows else []
    if not rows:
        return
    steps = [x["env_steps"] for x in rows]
    figure = Figure(figsize=(4 * (2 + len(schedules)), 3.6), layout="constrained")
    axes = figure.subplots(1, 2 + len(schedules))
    ancestors = np.array([x["ancestor"] for x in rows], int)
    for axis, name in zip(axes, ["episode_return", *schedules], strict=False):
        values = np.array([x[name] for x in rows], float)
        for member, line in enumerate(values.T):
            colour = f"C{ancestors[-1, member] % 10}"
            axis.plot(steps, line, color=colour, linewidth=0.8)
        title = name.removeprefix("setting_").replace("_", " ")
        axis.set(title=title, xlabel="environment steps of all members")
        if name != "episode_return":
            axis.set_yscale("log" if name != "setting_gamma" else "linear")
    axes[-1].plot(steps, [len(set(x)) for x in ancestors])
    axes[-1].set(title="ancestors alive", xlabel="environment steps of all members")
    save(figure, path)


EXPERIMENT = cli.Experiment(Args, make_agent, train=train_and_draw)
