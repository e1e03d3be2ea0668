"""A2C, which solves CartPole in seconds.

On one device or several, with `--num-devices`; with late gradients, actors in threads,
asynchronous workers or learners that gossip, with `--topology`.
"""

from dataclasses import dataclass

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.networks import actor_critic
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(cli.Args):
    """Batched advantage actor-critic."""

    total_steps: int = 3_072_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=7e-3, max_grad_norm=1.0)
    a2c: A2CConfig = A2CConfig(gae_lambda=0.95, entropy_cost=0.0)


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """A2C for these observations and actions."""
    return a2c(actor_critic(*specs, args.network), optimizer, args.a2c)


EXPERIMENT = cli.Experiment(Args, make_agent)
