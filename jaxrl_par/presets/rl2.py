"""RL^2: PPO with memory, in trials of several episodes in one task: bandits by default.

Memory lasts for the trial, so that what is learned is how to learn a task. Environments
of trials are named after their sizes and episodes: `--env-name Bandits-5x10` are ten
pulls of five arms, `RandomMDPs-10x25` have ten states and 25 episodes.
"""

from dataclasses import dataclass

from jaxrl_par import cli
from jaxrl_par.algorithms.ppo import PPOConfig
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.ppo import Args as PPOArgs
from jaxrl_par.presets.ppo import make_agent


@dataclass(frozen=True)
class Args(PPOArgs):
    """PPO that learns to learn."""

    env_name: str = "Bandits-5x10"
    num_envs: int = 512
    unroll_length: int = 11
    """Rows of a whole trial of ten steps: one more shows its end. Longer trials may be
    cut into several unrolls, which hand on their memory."""
    num_minibatches: int = 2
    total_steps: int = 1_000_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-3)
    network: NetworkConfig = NetworkConfig(widths=(32,), memory="gru", memory_width=64)
    ppo: PPOConfig = PPOConfig(gamma=0.95, gae_lambda=0.9, clip_values=False)

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
