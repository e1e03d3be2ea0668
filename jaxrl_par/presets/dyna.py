"""Deep Dyna-Q, on devices or with actors in threads: CartPole by default.

DQN learns from replay, and from short branches that an ensemble of networks imagines.
`--imagination.share 0` is DQN alone, whose model is learned and not asked.

Parallel deep Dyna-Q has one real environment, whose actor goes on by itself, and as
many branches as one likes, on as many devices. `threads.pace` says how much is learned
for each real row:

    python experiments/dyna.py --topology threads --num-envs 1 --num-devices 2
        --threads.unrolls-per-update 2 --imagination.branches 1024

Source: lecture 5 (Elster, Mustafaoglu and Pingali).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.dqn import DQNConfig, dqn
from jaxrl_par.algorithms.world_model import WorldModelConfig, world_model
from jaxrl_par.cli.replay import ReplayArgs, ReplayConfig
from jaxrl_par.loops import ImaginationConfig, dyna
from jaxrl_par.loops.pace import PaceConfig
from jaxrl_par.networks import NetworkConfig, q_network, world_network
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.replay import Windows
from jaxrl_par.topologies.configs import ThreadsConfig
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(ReplayArgs):
    """Deep Dyna-Q: DQN, a model, and what they imagine."""

    topologies: ClassVar[tuple[str, ...]] = (
        "compiled",
        "delayed",
        "gossip",
        "threads",
        "fleet",
    )
    lacks: ClassVar[str] = (
        "the model has statistics of what was observed, and workers send gradients"
        " alone"
    )

    num_envs: int = 4
    unroll_length: int = 4
    total_steps: int = 10_000
    threads: ThreadsConfig = ThreadsConfig(
        num_actors=1,
        schedule="decoupled",
        pace=PaceConfig(samples_per_insert=128.0, run_ahead=4),
    )
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=1e-3, anneal=False, max_grad_norm=10.0
    )
    network: NetworkConfig = NetworkConfig()
    # Ends are rare, and their errors large: Huber's bound would hide them.
    dqn: DQNConfig = DQNConfig(
        n_step=3, polyak_rate=0.01, anneal_steps=3_000, huber_delta=None
    )
    dueling: bool = False
    """Values as that of the state, and advantages of the actions."""
    model_optimizer: OptimizerConfig = OptimizerConfig(anneal=False, max_grad_norm=10.0)
    model_network: NetworkConfig = NetworkConfig(widths=(64,), activation="swish")
    """Of one member of the model."""
    model: WorldModelConfig = WorldModelConfig(num_members=3)
    imagination: ImaginationConfig = ImaginationConfig(branches=64, horizon=3)
    """Branches are those of all devices together."""
    replay: ReplayConfig = ReplayConfig(
        capacity=51_200, min_size=512, batch_size=64, updates_per_step=32
    )

    @property
    def windows(self) -> Windows:
        # The carry is a rate of exploration.
        return Windows(1, 0, self.dqn.n_step - 1, constant_carry=True)

    def largest_product(self) -> int:
        rows = self.model.num_members * self.replay.batch_size
        return max(
            super().largest_product(), rows * max(self.model_network.widths) ** 2
        )

    def problems(self) -> list[str]:
        """What is out of range, or not for a model."""
        found = super().problems()
        usual = type(self)()
        for name in ("network", "model_network"):
            given, default = getattr(self, name), getattr(usual, name)
            found += [
                f"{name}.{part} is for actor-critics: leave it out, got {value}"
                for part in ("shared", "policy")
                if (value := getattr(given, part)) != getattr(default, part)
            ]
            if given.memory != "none":
                found.append(
                    f"{name}.memory must be none here, got {given.memory}: branches"
                    " begin in the middle of an episode, where no memory is known"
                )
        if self.dqn.n_step > self.imagination.horizon:
            found.append(
                f"imagination.horizon must be at least dqn.n_step = {self.dqn.n_step},"
                f" got {self.imagination.horizon}"
            )
        devices = self.num_devices if self.system in ("compiled", "threads") else 1
        if devices > 0 and self.imagination.branches % devices:
            found.append(
                f"imagination.branches must be a multiple of num_devices = {devices},"
                f" got {self.imagination.branches}"
            )
        return found + [
            f"dqn.{name} is for networks with memory: leave it out, got {value}"
            for name, value in (
                ("burn_in", self.dqn.burn_in),
                ("start", self.dqn.start if self.dqn.start != "stored" else None),
                ("measure_staleness", self.dqn.measure_staleness),
            )
            if value
        ]


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """Deep Dyna-Q for these observations and actions."""
    atoms = None if args.dqn.values == "expected" else args.dqn.num_atoms
    network = q_network(*specs, args.network, dueling=args.dueling, num_atoms=atoms)
    recorded = {"record_priority": args.replay.needs_recorded}
    agent = dqn(network, optimizer, replace(args.dqn, **recorded))
    own = args.make_optimizer(args.model_optimizer)
    model = world_model(world_network(*specs, args.model_network), own, args.model)
    # Devices share the branches, and their gradients are averaged.
    devices = args.num_devices if args.system in ("compiled", "threads") else 1
    each = args.imagination.branches // devices
    return dyna(agent, model, replace(args.imagination, branches=each))


EXPERIMENT = cli.Experiment(Args, make_agent)
