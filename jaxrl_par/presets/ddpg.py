"""DDPG from replay, on devices or with actors in threads: Pendulum by default.

It is `td3` with one critic, and neither a delay nor noise on the actions of targets.
Ape-X DPG is DDPG on actors, each with noise of its own, whose learner waits for none:

    --topology threads --threads.schedule decoupled --ddpg.exploration ladder
    --ddpg.n-step 3 --replay.prioritised --replay.priorities.first recorded

Sources: Lillicrap et al., arXiv:1509.02971; Horgan et al., arXiv:1803.00933.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxrl_par import cli
from jaxrl_par.algorithms.actor_critic import DDPGConfig
from jaxrl_par.presets.sac import OffPolicyArgs, leave
from jaxrl_par.presets.td3 import make_agent


@dataclass(frozen=True)
class Args(OffPolicyArgs):
    """Deep deterministic policy gradients."""

    part: ClassVar[str] = "ddpg"

    ddpg: DDPGConfig = DDPGConfig()


EXPERIMENT = cli.Experiment(Args, make_agent, leave)
