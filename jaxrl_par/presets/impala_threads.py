"""IMPALA with actor threads, for simulators: LunarLander by default."""

from dataclasses import dataclass

from jaxrl_par import cli
from jaxrl_par.algorithms.impala import ImpalaConfig
from jaxrl_par.cli import Topology
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.impala import Args as ImpalaArgs
from jaxrl_par.presets.impala import make_agent
from jaxrl_par.topologies.configs import ThreadsConfig


@dataclass(frozen=True)
class Args(ImpalaArgs):
    """IMPALA on a simulator: actors act for the next update while one is learned."""

    env_name: str = "LunarLander-v3"
    topology: Topology = "threads"
    total_steps: int = 3_000_000
    num_envs: int = 16
    threads: ThreadsConfig = ThreadsConfig(num_actors=1, schedule="lockstep")
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    network: NetworkConfig = NetworkConfig(shared=False)
    impala: ImpalaConfig = ImpalaConfig(
        gamma=0.999, vtrace_lambda=0.98, reward_scale=0.05, entropy_cost=0.001
    )


EXPERIMENT = cli.Experiment(Args, make_agent)
