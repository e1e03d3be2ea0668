"""PPO with actor threads in lockstep: solves LunarLander."""

from dataclasses import dataclass

from jaxrl_par import cli
from jaxrl_par.algorithms.ppo import PPOConfig
from jaxrl_par.cli import Topology
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.ppo import Args as PPOArgs
from jaxrl_par.presets.ppo import make_agent
from jaxrl_par.topologies.configs import ThreadsConfig


@dataclass(frozen=True)
class Args(PPOArgs):
    """PPO on a simulator: actors act for the next update while this one is learned."""

    env_name: str = "LunarLander-v3"
    topology: Topology = "threads"
    total_steps: int = 3_000_000
    num_envs: int = 16
    unroll_length: int = 128
    num_minibatches: int = 8
    threads: ThreadsConfig = ThreadsConfig(num_actors=1, schedule="lockstep")
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    ppo: PPOConfig = PPOConfig(entropy_cost=0.0)


EXPERIMENT = cli.Experiment(Args, make_agent)
