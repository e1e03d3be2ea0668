"""Asynchronous Q-learning, SARSA and n-step Q-learning, on CartPole.

`--q.method` chooses. Threads share parameters as `--workers.store` says; the same
asynchrony as data, in one compiled program, is `--topology delayed`; batched and
without any, `--topology compiled`.
"""

from dataclasses import dataclass
from typing import ClassVar

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.q_learning import QConfig, q_learning
from jaxrl_par.cli import Flat, Topology
from jaxrl_par.networks import q_network
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.training import TrainingConfig
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(cli.Args):
    """Asynchronous Q-learning without replay."""

    fleet_of: ClassVar[str] = "workers"

    topology: Topology = "workers"
    unroll_length: int = 16
    total_steps: int = 2_000_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3, max_grad_norm=10.0)
    q: QConfig = QConfig()
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=125)

    def problems(self) -> list[str]:
        """What is out of range, or for networks of another kind."""
        usual = type(self)().network
        return super().problems() + [
            f"network.{name} is for actor-critics: leave it out, got {value}"
            for name in ("shared", "policy")
            if (value := getattr(self.network, name)) != getattr(usual, name)
        ]


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """Q-learning for these observations and actions."""
    return q_learning(q_network(*specs, args.network), optimizer, args.q)


EXPERIMENT = cli.Experiment(Args, make_agent)
