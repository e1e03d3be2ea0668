"""RL^2: A2C with memory, in trials of several episodes in one task: bandits by default.

Memory lasts for the trial, so that what is learned is how to learn a task. Environments
of trials are named after their sizes and episodes: `--env-name Bandits-5x10` are ten
pulls of five arms, `RandomMDPs-10x25` have ten states and 25 episodes.
"""

from dataclasses import dataclass

from jaxrl_par import cli
from jaxrl_par.algorithms.a2c import A2CConfig
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.a2c import Args as A2CArgs
from jaxrl_par.presets.a2c import make_agent


@dataclass(frozen=True)
class Args(A2CArgs):
    """A2C that learns to learn."""

    env_name: str = "Bandits-5x10"
    num_envs: int = 512
    unroll_length: int = 11
    """Rows of a whole trial: its steps, and one that shows its end."""
    total_steps: int = 4_000_000
    network: NetworkConfig = NetworkConfig(widths=(32,), memory="gru", memory_width=64)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-3, max_grad_norm=1.0)
    a2c: A2CConfig = A2CConfig(gae_lambda=0.95, entropy_cost=0.01)

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems()
        if self.network.memory == "none":
            found.append(
                "network.memory must be lstm, gru or gtrxl, got none: without memory"
                " nothing is learned within a trial"
            )
        return found


EXPERIMENT = cli.Experiment(Args, make_agent)
