"""TRPO on devices, or with actors in threads: CartPole by default.

`--trpo.step natural` takes the natural gradient's full step without a search, as a
baseline. Pendulum takes

    --env-name Pendulum-v1 --normalize --num-envs 64 --total-steps 400000
    --network.activation relu --trpo.delta 0.005 --trpo.gamma 0.95 --trpo.gae-lambda 0.9
"""

from dataclasses import dataclass
from typing import ClassVar

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.trust_region import TRPOConfig, trpo
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.networks import NetworkConfig, actor_critic, policy_network
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.topologies.configs import WorkersConfig
from jaxrl_par.types import Agent, Specs

FRESH = StalenessConfig("reject", max_staleness=0)
"""Of steps that others have not overtaken: the only ones to be applied."""


@dataclass(frozen=True)
class Args(cli.Args):
    """Trust region policy optimisation."""

    topologies: ClassVar[tuple[str, ...]] = ("compiled", "delayed", "threads", "fleet")
    lacks: ClassVar[str] = (
        "a step is searched over the joint batch, for the parameters that it begins at,"
        " and is none for parameters that others have moved"
    )

    num_envs: int = 32
    unroll_length: int = 64
    total_steps: int = 200_000
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=3e-3, anneal=False, max_grad_norm=10.0
    )
    """Of the value function alone: the policy has none."""
    network: NetworkConfig = NetworkConfig(shared=False)
    """The policy's, and again that of the value function."""
    workers: WorkersConfig = WorkersConfig(staleness=FRESH)
    trpo: TRPOConfig = TRPOConfig()

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems()
        if self.topology == "delayed" and self.workers.staleness != FRESH:
            found.append(
                "workers.staleness must be rule = reject with max_staleness = 0 here:"
                " a step fits the parameters that it was searched from, and no others"
            )
        if self.network.shared:
            found.append(
                "network.shared must be False: a step within the bound moves the"
                " policy, and the value function's optimizer must not move it too"
            )
        return found


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """TRPO for these observations and actions."""
    actor = policy_network(*specs, args.network)
    return trpo(actor, actor_critic(*specs, args.network), optimizer, args.trpo)


EXPERIMENT = cli.Experiment(Args, make_agent)
