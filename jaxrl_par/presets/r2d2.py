"""R2D2 on a chain of 30 steps: DQN with memory, from sequences of what was acted.

Sequences begin with the memory of acting, which was stored and is stale, and refresh it
on the rows before (`--dqn.burn-in`). `--dqn.start zero` forgets it.
"""

from dataclasses import dataclass

from jaxrl_par import cli
from jaxrl_par.algorithms.dqn import DQNConfig
from jaxrl_par.cli.replay import ReplayConfig
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.dqn import Args as DQNArgs
from jaxrl_par.presets.dqn import make_agent
from jaxrl_par.replay import PriorityConfig


@dataclass(frozen=True)
class Args(DQNArgs):
    """R2D2: recurrent Q-learning from prioritised replay of sequences."""

    env_name: str = "MemoryChain-30"
    num_envs: int = 16
    unroll_length: int = 80
    sequence: int | None = 40
    total_steps: int = 200_000
    show_previous: bool = True
    dueling: bool = True
    network: NetworkConfig = NetworkConfig(widths=(64,), memory="lstm", memory_width=64)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3, max_grad_norm=40.0)
    dqn: DQNConfig = DQNConfig(
        gamma=0.997,
        n_step=5,
        burn_in=20,
        rescale=1e-3,
        exploration="ladder",
        target_period=100,
    )
    replay: ReplayConfig = ReplayConfig(
        capacity=51_200,
        min_size=6_400,
        batch_size=32,
        updates_per_step=8,
        prioritised=True,
        priorities=PriorityConfig(alpha=0.9, beta=0.6),
    )

    def problems(self) -> list[str]:
        """What is out of range."""
        if not self.has_memory:
            return ["network.memory must not be none: without memory, take dqn"]
        return super().problems()


EXPERIMENT = cli.Experiment(Args, make_agent)
