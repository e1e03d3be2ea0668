"""A3C, on CartPole by default: A2C on asynchronous workers.

Threads that share parameters under a lock, as Hogwild or through a parameter server:
`--workers.store`. The same asynchrony as data, in one compiled program, is
`--topology delayed`, whose `--delays.model` says who is late.

Any environment: `--env-name Pendulum-v1` has continuous actions, `LunarLander-v3` is a
simulator, and so is CartPole with `--backend gymnasium`. For memory, `--network.memory
lstm`. The paper's workers have one environment each and sum the loss over an unroll:
`--num-envs 4 --a2c.reduction sum`, with a learning rate to match.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxrl_par import cli
from jaxrl_par.cli import Flat, Topology
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.a2c import Args as A2CArgs
from jaxrl_par.presets.a2c import make_agent
from jaxrl_par.training import TrainingConfig


@dataclass(frozen=True)
class Args(A2CArgs):
    """Asynchronous advantage actor-critic, by default with shared RMSProp."""

    fleet_of: ClassVar[str] = "workers"

    topology: Topology = "workers"
    total_steps: int = 2_048_000
    optimizer: OptimizerConfig = OptimizerConfig(
        name="rmsprop", learning_rate=4e-3, max_grad_norm=1.0
    )
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=100)


EXPERIMENT = cli.Experiment(Args, make_agent)
