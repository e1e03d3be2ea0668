"""Q-Prop on devices, or with actors in threads: Pendulum by default.

TRPO, whose advantages are rid of what a critic from replay explains of them.
`--q-prop.variant` says how much the critic is believed; without it, this is `trpo`.
"""

from dataclasses import dataclass
from typing import ClassVar

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.actor_critic import CriticConfig, CriticState, critic_of
from jaxrl_par.algorithms.trust_region import QPropConfig, TRPOState, q_prop
from jaxrl_par.algorithms.trust_region.q_prop import SLOPE
from jaxrl_par.cli.replay import ReplayArgs, ReplayConfig
from jaxrl_par.loops import Learner, judged, replayed
from jaxrl_par.networks import (
    NetworkConfig,
    action_value,
    actor_critic,
    policy_network,
)
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.replay import Windows
from jaxrl_par.types import Extras, Specs, Trajectory


@dataclass(frozen=True)
class Args(ReplayArgs):
    """Q-Prop: a trust region, and a critic from replay as a control variate."""

    topologies: ClassVar[tuple[str, ...]] = ("compiled", "threads", "fleet")
    lacks: ClassVar[str] = (
        "a step is searched over the joint batch, for the parameters that it begins at,"
        " and is none for parameters that others have moved"
    )
    part: ClassVar[str] = "critic"

    env_name: str = "Pendulum-v1"
    num_envs: int = 16
    unroll_length: int = 128
    total_steps: int = 300_000
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=3e-3, anneal=False, max_grad_norm=10.0
    )
    """Of the value function alone: the policy has none."""
    critic_optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=1e-3, anneal=False, max_grad_norm=10.0
    )
    network: NetworkConfig = NetworkConfig(shared=False)
    """The policy's, and those of the value function and the critic."""
    q_prop: QPropConfig = QPropConfig(gamma=0.95)
    critic: CriticConfig = CriticConfig(gamma=0.95, num_critics=1)
    replay: ReplayConfig = ReplayConfig(
        capacity=102_400, min_size=2_048, updates_per_step=256
    )
    """Of the critic: its updates in each step."""

    @property
    def windows(self) -> Windows:
        return Windows(1, lookahead=self.critic.n_step - 1)

    def problems(self) -> list[str]:
        """What is out of range, or for policies of another kind."""
        found, network = super().problems(), self.network
        if network.shared:
            found.append(
                "network.shared must be False: a step within the bound moves the"
                " policy, and the value function's optimizer must not move it too"
            )
        if network.policy != "gaussian":
            found.append(
                f"network.policy must be gaussian here, got {network.policy}: a control"
                " variate's mean is known where the mean of the actions is"
            )
        if network.memory != "none":
            found.append(
                f"network.memory must be none here, got {network.memory}: the critic"
                " learns from single transitions, of which none has a memory"
            )
        if self.replay.needs_recorded:
            found.append(
                "replay.priorities.first must be maximal here, got recorded: whoever"
                " acts has no critic"
            )
        return found


def make_learner(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Learner:
    """Q-Prop for these observations and actions."""
    actor, values = (
        make(*specs, args.network) for make in (policy_network, actor_critic)
    )
    own = args.make_optimizer(args.critic_optimizer)
    judge = action_value(*specs, args.network)
    critic = critic_of(actor, judge, specs[1], own, args.critic)
    policy = q_prop(actor, values, optimizer, args.q_prop)

    def tell(state: CriticState, own: TRPOState, trajectory: Trajectory) -> Extras:
        (acted, _), _ = actor.unroll(own.params["actor"], (), trajectory.rows)
        return {SLOPE: critic.slope(state.critics, trajectory.rows, acted.mode())}

    buffer = args.make_buffer(critic.agent)
    count = args.replay.updates_per_step
    learner = replayed(critic.agent, buffer, updates_per_step=count)
    return judged(policy, learner, tell, lambda own: own.params["actor"])


EXPERIMENT = cli.Experiment(Args, make_learner)
