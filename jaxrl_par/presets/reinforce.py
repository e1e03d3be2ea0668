"""Sample-parallel policy gradient: episodes in all environments, then an update."""

from dataclasses import dataclass
from typing import ClassVar

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.reinforce import ReinforceConfig, reinforce
from jaxrl_par.axis import Axis
from jaxrl_par.cli import Flat
from jaxrl_par.envs import Environment
from jaxrl_par.loops import Learner, Program
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.topologies.compiled import episodic
from jaxrl_par.training import TrainingConfig
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(cli.Args):
    """REINFORCE, the lecture's parallel policy gradient."""

    topologies: ClassVar[tuple[str, ...]] = ("compiled",)
    lacks: ClassVar[str] = "whole episodes, of which it learns, are acted there alone"

    num_envs: int = 64
    """Each plays an episode for every update; a multiple of num_devices."""
    unroll_length: int = 501
    """Rows for the longest episode: its steps, and one that shows its end."""
    total_steps: int = 2_300_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-2)
    network: NetworkConfig = NetworkConfig(widths=(32,), shared=False)
    reinforce: ReinforceConfig = ReinforceConfig()
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=1)

    def make_program(self, learner: Learner, env: Environment, axis: Axis) -> Program:
        """A whole episode in every environment, then an update."""
        return episodic(learner, env, self.unroll_length, axis)


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """REINFORCE for these observations and actions."""
    return reinforce(actor_critic(*specs, args.network), optimizer, args.reinforce)


EXPERIMENT = cli.Experiment(Args, make_agent)
