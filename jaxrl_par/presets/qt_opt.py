"""QT-Opt from replay: grasping in small, from what a script did and from its own tries.

`--off-policy` learns from the script's data alone. `--replay.demonstrations FOLDER`
takes those of anybody, as `jaxrl-par record-demonstrations` writes them, and with None
there is on-policy data alone.

`--labels updaters` has Bellman updaters, which label data for whoever trains:
`--labelling.num-updaters` of them. With topology = threads, as in the paper,
`--threads.num-distillers` are its training workers, and updaters go on beside them.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.qt_opt import QTOptConfig, labelled, nets_of, qt_opt
from jaxrl_par.axis import Axis
from jaxrl_par.cli.experts import EXPERT
from jaxrl_par.cli.replay import ReplayArgs, ReplayConfig
from jaxrl_par.errors import ReadIf
from jaxrl_par.loops import LabellingConfig, Learner, labelling, without_halves
from jaxrl_par.networks import NetworkConfig, candidate_values
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.replay import Buffer, Windows, recorded
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(ReplayArgs):
    """QT-Opt: off-policy Q-learning, whose best actions are searched for."""

    part: ClassVar[str] = "qt_opt"
    read_if: ClassVar[ReadIf] = {"labelling": ("labels", ("updaters",))}
    """What each of these fields is for: another one, and its values."""

    env_name: str = "Grasping-16x16"
    num_envs: int = 32
    unroll_length: int = 4
    total_steps: int = 100_000
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=2e-3, anneal=False, max_grad_norm=10.0
    )
    network: NetworkConfig = NetworkConfig(channels=8, widths=(64,), activation="relu")
    replay: ReplayConfig = ReplayConfig(
        capacity=51_200,
        min_size=1_280,
        batch_size=64,
        updates_per_step=8,
        demonstrations=EXPERT,
        demonstration_ratio=1 / 2,
        expert_steps=20_000,
    )
    qt_opt: QTOptConfig = QTOptConfig()
    off_policy: bool = False
    """Learn from demonstrations alone. What is acted is measured, and forgotten."""
    labels: Literal["own", "updaters"] = "own"
    """Who makes the targets of a batch: whoever trains on it, or Bellman updaters."""
    labelling: LabellingConfig = LabellingConfig()

    @property
    def windows(self) -> Windows:
        return Windows(1)

    @property
    def sharing(self) -> int:
        """Devices that share each batch."""
        return self.shares if self._is_joint else 1

    def make_buffer(self, agent: Agent) -> Buffer:
        """That of one device or worker, where batches to be labelled are drawn."""
        if not self.off_policy:
            return super().make_buffer(agent)
        demonstrated = self.demonstrated()
        assert demonstrated is not None
        size = self.replay.batch_size // self.sharing
        return recorded(demonstrated, size, self.windows)

    def problems(self) -> list[str]:
        """What is out of range, or for networks of another kind."""
        usual = type(self)().network
        found = super().problems() + [
            f"network.{name} is for actor-critics: leave it out, got {value}"
            for name in ("shared", "policy")
            if (value := getattr(self.network, name)) != getattr(usual, name)
        ]
        if (memory := self.network.memory) != "none":
            told = "it learns from single transitions, of which none has a memory"
            found.append(f"network.memory must be none here, got {memory}: {told}")
        if self.replay.needs_recorded:
            told = "priorities are those of whoever trains"
            found.append(f"replay.priorities.first must be maximal here: {told}")
        if self.off_policy:
            found += self._off_policy_problems()
        return found + (self._updater_problems() if self.labels == "updaters" else [])

    def _off_policy_problems(self) -> list[str]:
        found = []
        if self.replay.demonstrations is None:
            found.append(
                "replay.demonstrations must be there to learn off policy, got None:"
                f' give the folder of a recording, or "{EXPERT}" for a script\'s'
            )
        if self.replay.prioritised:
            told = "are drawn uniformly: leave replay.prioritised out"
            found.append(f"off_policy: recorded data {told}")
        return found

    def _updater_problems(self) -> list[str]:
        found = []
        if self.topology in ("delayed", "workers"):
            found.append(
                f'labels must be "own" here, got updaters:'
                f" {without_halves(self.topology)}"
            )
        if self.replay.prioritised:
            told = "leave replay.prioritised out, or the labels to whoever trains"
            found.append(f"labels: updaters draw uniformly: {told}")
        return found


def make_learner(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent | Learner:
    """QT-Opt for these observations and actions."""
    values = candidate_values(*specs, args.network)
    agent = qt_opt(values, specs[1], optimizer, args.qt_opt)
    if args.labels == "own":
        return agent
    nets = nets_of(values, specs[1], args.qt_opt)
    own = replace(args.replay, batch_size=args.labelling.batch_size * args.sharing)
    return labelling(
        agent,
        partial(_label, nets),
        lambda state: state.copies,
        replace(args, replay=own).make_buffer(agent),
        args.labelling,
        batch_size=args.replay.batch_size // args.sharing,
        updates_per_step=args.replay.updates_per_step,
    )


def _label(nets, copies, batch, key):
    return labelled(copies, batch, key, Axis(), nets)


EXPERIMENT = cli.Experiment(Args, make_learner)
