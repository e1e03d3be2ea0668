"""IMPALA, on Breakout-MinAtar by default. Try `--help`.

By default it acts and learns in turn; with `--topology threads`, `delayed` or `workers`
data or gradients are late. `impala_threads.py` has settings for simulators.
"""

from dataclasses import dataclass

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.types import Agent, Spec, Specs


@dataclass(frozen=True)
class Args(cli.Args):
    """IMPALA with V-trace."""

    env_name: str = "Breakout-MinAtar"
    unroll_length: int = 16
    total_steps: int = 10_000_000
    optimizer: OptimizerConfig = OptimizerConfig(
        "rmsprop", learning_rate=5e-3, max_grad_norm=1.0
    )
    network: NetworkConfig = NetworkConfig(widths=(128,), activation="relu")
    impala: ImpalaConfig = ImpalaConfig(entropy_cost=0.06)


def make_agent(
    args: Args, specs: tuple[Specs, Spec], optimizer: optax.GradientTransformation
) -> Agent:
    """IMPALA for these observations and actions."""
    return impala(actor_critic(*specs, args.network), optimizer, args.impala)


if __name__ == "__main__":
    cli.experiment(make_agent, Args)
