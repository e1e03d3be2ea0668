"""DQN from replay, on devices or with actors in threads: CartPole by default.

`--replay.prioritised`, `--dqn.n-step 3` and `--dueling` make it what Ape-X learns.
C51 is `--dqn.values categorical --dqn.v-min 0 --dqn.v-max 100`, and QR-DQN
`--dqn.values quantile`.
With `--network.memory lstm`, `--sequence`, `--dqn.burn-in` and `--dqn.rescale` it is
what R2D2 learns: see `r2d2`.
"""

from dataclasses import dataclass, replace

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.dqn import DQNConfig, dqn
from jaxrl_par.cli.replay import ReplayArgs, ReplayConfig
from jaxrl_par.networks import NetworkConfig, q_network
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.replay import Windows
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(ReplayArgs):
    """Deep Q-networks: double, dueling, n-step, prioritised, with memory."""

    num_envs: int = 8
    unroll_length: int = 8
    total_steps: int = 300_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-4, max_grad_norm=10.0)
    network: NetworkConfig = NetworkConfig(widths=(120, 84))
    dqn: DQNConfig = DQNConfig(polyak_rate=0.01, anneal_steps=25_000)
    dueling: bool = False
    """Values as that of the state, and advantages of the actions."""
    sequence: int | None = None
    """With memory: rows of a sequence that are trained, which must divide
    `unroll_length`. None: all of an unroll."""
    replay: ReplayConfig = ReplayConfig(
        capacity=10_240, min_size=1_280, updates_per_step=8
    )

    @property
    def has_memory(self) -> bool:
        """Whether the network has."""
        return self.network.memory != "none"

    @property
    def windows(self) -> Windows:
        ahead = self.dqn.n_step - 1
        if not self.has_memory:
            # The carry is a rate of exploration.
            return Windows(1, 0, ahead, constant_carry=True)
        unread = self.dqn.start == "zero"
        return Windows(self.sequence, self.dqn.burn_in, ahead, constant_carry=unread)

    def problems(self) -> list[str]:
        """What is out of range, or for networks of another kind."""
        usual = type(self)().network
        found = super().problems() + [
            f"network.{name} is for actor-critics: leave it out, got {value}"
            for name in ("shared", "policy")
            if (value := getattr(self.network, name)) != getattr(usual, name)
        ]
        if self.has_memory:
            return found + self._burn_in_problems()
        return found + [
            f"{name} is for networks with memory: leave it out, got {value}"
            for name, value in (
                ("sequence", self.sequence),
                ("dqn.burn_in", self.dqn.burn_in),
                ("dqn.start", self.dqn.start if self.dqn.start != "stored" else None),
                ("dqn.measure_staleness", self.dqn.measure_staleness),
            )
            if value
        ]

    def _burn_in_problems(self) -> list[str]:
        length, burn_in = self.windows.trained(self.unroll_length), self.dqn.burn_in
        if burn_in and length >= self.unroll_length:
            told = "dqn.burn_in needs several sequences in an unroll: give sequence"
            return [f"{told} below unroll_length = {self.unroll_length}"]
        if burn_in > length:
            told = f"dqn.burn_in must be at most the {length} rows of a sequence"
            return [f"{told}, got {burn_in}"]
        return []


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """DQN for these observations and actions."""
    atoms = None if args.dqn.values == "expected" else args.dqn.num_atoms
    network = q_network(*specs, args.network, dueling=args.dueling, num_atoms=atoms)
    windows = args.windows
    starts = not windows.constant_carry and windows.each(args.unroll_length) > 1
    recorded = {"record_carry": starts, "record_priority": args.replay.needs_recorded}
    return dqn(network, optimizer, replace(args.dqn, **recorded))


EXPERIMENT = cli.Experiment(Args, make_agent)
