"""SAC from replay, on devices or with actors in threads: Pendulum by default.

Its temperature is learned; `--sac.no-learn-temperature --sac.temperature 0.2` fixes it.
`--replay.prioritised` and `--sac.n-step 3` are as for `dqn`. Workers and `delayed` take
it with one update for each unroll (`--replay.updates-per-step 1`).
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import optax

from jaxrl_par import cli, export, training
from jaxrl_par.algorithms.actor_critic import OffPolicyConfig, SACConfig, sac
from jaxrl_par.algorithms.normalize import Normalized
from jaxrl_par.cli.replay import ReplayArgs, ReplayConfig
from jaxrl_par.loops import Learner
from jaxrl_par.networks import NetworkConfig, action_value, gaussian_policy
from jaxrl_par.networks.continuous import as_actor
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.replay import Windows
from jaxrl_par.types import Agent, Box, Specs


@dataclass(frozen=True)
class OffPolicyArgs(ReplayArgs):
    """What SAC, TD3, DDPG and NAF have in common."""

    env_name: str = "Pendulum-v1"
    num_envs: int = 4
    unroll_length: int = 4
    total_steps: int = 30_000
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=1e-3, anneal=False, max_grad_norm=10.0
    )
    network: NetworkConfig = NetworkConfig(widths=(64, 64), activation="relu")
    replay: ReplayConfig = ReplayConfig(
        capacity=102_400, min_size=1_024, updates_per_step=16
    )
    onnx: bool = False
    """Leave the greedy actor as ONNX too, which the extra of that name writes."""

    @property
    def algorithm(self) -> OffPolicyConfig:
        """The algorithm's config."""
        return getattr(self, self.part)

    @property
    def recorded(self) -> Any:
        """That config, with first priorities where replay needs them."""
        return replace(self.algorithm, record_priority=self.replay.needs_recorded)

    @property
    def windows(self) -> Windows:
        ahead = self.algorithm.n_step - 1
        # A carry, if there is one, is of noise, and nothing is learned from it.
        return Windows(1, 0, ahead, constant_carry=True)

    def problems(self) -> list[str]:
        """What is out of range, or for networks of another kind."""
        usual = type(self)().network
        found = super().problems() + [
            f"network.{name} is for actor-critics that learn on policy: leave it out,"
            f" got {value}"
            for name in ("shared", "policy")
            if (value := getattr(self.network, name)) != getattr(usual, name)
        ]
        if (memory := self.network.memory) != "none":
            told = "they learn from single transitions, of which none has a memory"
            found.append(f"network.memory must be none here, got {memory}: {told}")
        return found + (export.onnx_problems(asdict(self.network)) * self.onnx)


@dataclass(frozen=True)
class Args(OffPolicyArgs):
    """Soft actor-critic, whose temperature is learned."""

    part: ClassVar[str] = "sac"

    sac: SACConfig = SACConfig()


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """SAC for these observations and actions."""
    policy = gaussian_policy(*specs, args.network)
    critic = action_value(*specs, args.network)
    return sac(policy, critic, specs[1], optimizer, args.recorded)


def leave(args: OffPolicyArgs, learner: Learner, trained: training.Trained) -> None:
    """Exports the greedy actor, also for NumPy where that knows the network."""
    observation_spec, action_spec = args.specs()
    run = trained.run if args.joined is None else args.joined(trained.run)
    params = learner.params(run.learner)
    inner = params.inner if isinstance(params, Normalized) else params
    actor = as_actor(inner.policy, action_spec.shape[0])
    bounded = isinstance(action_spec, Box) and action_spec.bounded
    policy = "squashed" if bounded else "gaussian"
    network = replace(args.network, policy=policy, shared=False)
    export.write(
        trained.directory.actor,
        network=network,
        observation_spec=observation_spec,
        action_spec=action_spec,
        params=params._replace(inner=actor) if inner is not params else actor,
        numpy=export.for_numpy(network, observation_spec),
        onnx=args.onnx,
    )


EXPERIMENT = cli.Experiment(Args, make_agent, leave)
