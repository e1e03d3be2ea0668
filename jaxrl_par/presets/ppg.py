"""Phasic policy gradient (PPG), on devices or with actors in threads.

Policy and value are trained apart by PPO. After every N_pi rollouts the policy's
network learns what the values were, while what it does stays.
"""

from dataclasses import dataclass
from typing import ClassVar

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.ppg import PPGConfig, auxiliary, value_targets
from jaxrl_par.algorithms.ppo import PPOConfig, ppo
from jaxrl_par.loops import Learner, PhasesConfig, epochs, phasic
from jaxrl_par.networks import NetworkConfig, actor_critic, separate
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.types import Specs


@dataclass(frozen=True)
class Args(cli.EpochArgs):
    """PPG: `num_epochs` are E_pi and E_V, passes over each rollout."""

    topologies: ClassVar[tuple[str, ...]] = ("compiled", "gossip", "threads", "fleet")
    lacks: ClassVar[str] = (
        "phases, which learn from many rollouts, have no halves (contribute, apply)"
    )

    num_envs: int = 8
    unroll_length: int = 64
    total_steps: int = 200_000
    num_epochs: int = 2
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2.5e-3)
    auxiliary_optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    """Of auxiliary phases."""
    network: NetworkConfig = NetworkConfig()
    """The policy's, with the auxiliary head, and again that of the value."""
    ppo: PPOConfig = PPOConfig()
    # Beside CartPole's squared errors, which are in the thousands, a weight of 1 would
    # lose the policy in the first phases.
    ppg: PPGConfig = PPGConfig(clone_cost=1_000.0)
    phases: PhasesConfig = PhasesConfig(num_rollouts=16, num_epochs=4)

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems()
        if not self.network.shared:
            found.append(
                "network.shared must be True: the policy's network has an auxiliary"
                " head, and the value a network of its own"
            )
        if found or self.phases.problems():
            return found
        lanes = self.lanes // self.num_devices * self.phases.num_rollouts
        rows = self.unroll_length if self.network.memory == "none" else 1
        if lanes * rows % self.phases.num_minibatches:
            found.append(
                f"phases.num_minibatches must divide the {lanes * rows} rows or"
                f" sequences of a phase, got {self.phases.num_minibatches}"
            )
        return found


def make_learner(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Learner:
    """PPG for these observations and actions."""
    actor, critic = (actor_critic(*specs, args.network) for _ in range(2))
    network = separate(actor, critic)
    policy = epochs(
        ppo(network, optimizer, args.ppo), args.num_epochs, args.num_minibatches
    )
    own = args.make_optimizer(args.auxiliary_optimizer)
    phase = auxiliary(actor, critic, own, args.ppg)
    targets = value_targets(network, args.ppo.gamma, args.ppo.gae_lambda)
    return phasic(policy, phase, targets, args.phases)


EXPERIMENT = cli.Experiment(Args, make_learner)
