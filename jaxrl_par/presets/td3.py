"""TD3 from replay, on devices or with actors in threads: Pendulum by default.

Two critics, of which targets believe the lower one; a policy that is improved in every
second update, and noise on the actions of targets. Topologies are those of `sac`.
"""

from dataclasses import dataclass
from typing import ClassVar

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.actor_critic import TD3Config, td3
from jaxrl_par.networks import action_value, deterministic_policy
from jaxrl_par.presets.sac import OffPolicyArgs, leave
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(OffPolicyArgs):
    """Twin delayed deterministic policy gradients."""

    part: ClassVar[str] = "td3"

    td3: TD3Config = TD3Config()


def make_agent(
    args: OffPolicyArgs,
    specs: tuple[Specs, Specs],
    optimizer: optax.GradientTransformation,
) -> Agent:
    """TD3, or DDPG, for these observations and actions."""
    policy = deterministic_policy(*specs, args.network)
    critic = action_value(*specs, args.network)
    return td3(policy, critic, specs[1], optimizer, args.recorded)


EXPERIMENT = cli.Experiment(Args, make_agent, leave)
