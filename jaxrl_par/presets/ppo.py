"""PPO on devices, or with actors in threads: CartPole by default.

A single pass without minibatches also runs on `--topology delayed` and `workers`.
"""

from dataclasses import dataclass

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.ppo import PPOConfig, ppo
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(cli.EpochArgs):
    """Proximal policy optimisation."""

    num_envs: int = 8
    unroll_length: int = 64
    total_steps: int = 200_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2.5e-3)
    network: NetworkConfig = NetworkConfig(shared=False)
    ppo: PPOConfig = PPOConfig()


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """PPO for these observations and actions."""
    return ppo(actor_critic(*specs, args.network), optimizer, args.ppo)


EXPERIMENT = cli.Experiment(Args, make_agent)
