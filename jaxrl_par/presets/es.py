"""Evolution strategies: perturbed parameters play, and devices exchange their fitness.

No gradient of the network is computed, so any policy and any environment will do.
"""

from dataclasses import dataclass
from typing import ClassVar

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.es import ESConfig, es
from jaxrl_par.axis import Axis
from jaxrl_par.cli import Flat
from jaxrl_par.envs import Environment
from jaxrl_par.errors import above, at_least
from jaxrl_par.loops import Learner, Program, evolution
from jaxrl_par.networks import NetworkConfig, policy_network
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.training import TrainingConfig
from jaxrl_par.types import Agent, Spec, Specs


@dataclass(frozen=True)
class Args(cli.Args):
    """OpenAI's evolution strategies."""

    topologies: ClassVar[tuple[str, ...]] = ("compiled",)
    lacks: ClassVar[str] = "whole episodes, of which it learns, are acted there alone"

    num_envs: int = 128
    """Members of a generation, an even number on each device."""
    episodes: int = 1
    """Those that each member plays, side by side."""
    unroll_length: int = 500
    """Steps of the longest episode."""
    cap_factor: float | None = 2.0
    """Cut members' episodes at so many times the mean length of the generation before.
    None: only at unroll_length."""
    total_steps: int = 2_000_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-2, anneal=False)
    network: NetworkConfig = NetworkConfig(widths=(32,))
    es: ESConfig = ESConfig()
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=1)

    @property
    def rows_per_update(self) -> int:
        """The most environment steps of a generation."""
        return (self.num_envs * self.episodes + 1) * self.unroll_length

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems() + at_least(self, episodes=1)
        found += above(self, cap_factor=0)
        if self.num_envs % (2 * max(self.num_devices, 1)):
            found.append(
                "num_envs must be members in pairs, as many on each of the"
                f" {self.num_devices} devices: a multiple of {2 * self.num_devices},"
                f" got {self.num_envs}"
            )
        return found

    def make_program(self, learner: Learner, env: Environment, axis: Axis) -> Program:
        """Whole episodes of all members, then a step."""
        return evolution(
            learner.actor,
            self.make_env(self.episodes),
            self.es.noise,
            env.num_envs,
            self.unroll_length,
            cap_factor=self.cap_factor,
            axis=axis,
        )


def make_agent(
    args: Args, specs: tuple[Specs, Spec], optimizer: optax.GradientTransformation
) -> Agent:
    """Evolution strategies for these observations and actions."""
    return es(policy_network(*specs, args.network), optimizer, args.es)


EXPERIMENT = cli.Experiment(Args, make_agent)
