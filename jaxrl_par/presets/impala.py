"""IMPALA, on Breakout-MinAtar by default.

It learns from what it acted in several passes, for which V-trace corrects as for any
other lag. A single pass also runs on `--topology delayed` and `workers`, with
`--num-epochs 1 --num-minibatches 1`. `impala_threads.py` has settings for simulators.
"""

from dataclasses import dataclass
from typing import ClassVar

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.cli import Flat
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.training import TrainingConfig
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(cli.EpochArgs):
    """IMPALA with V-trace."""

    learns_from_rows: ClassVar[bool] = False

    env_name: str = "Breakout-MinAtar"
    num_envs: int = 64
    unroll_length: int = 128
    num_minibatches: int = 8
    total_steps: int = 4_000_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-3)
    # On CPU a convolution would take most of the time. Larger images need auto.
    network: NetworkConfig = NetworkConfig(torso="mlp", activation="relu")
    impala: ImpalaConfig = ImpalaConfig(
        vtrace_lambda=0.95, entropy_cost=0.01, behaviour_cost=1.0
    )
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=10)


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """IMPALA for these observations and actions."""
    return impala(actor_critic(*specs, args.network), optimizer, args.impala)


EXPERIMENT = cli.Experiment(Args, make_agent)
