"""Ape-X: actors with a ladder of exploration, and a learner that waits for no actor.

Actors compute the first priorities of what they acted. `--threads.pace` bounds how much
is learned for what is acted; `--threads.schedule lockstep --threads.lag 0` is the same
run every time, and that of `dqn.py` with these settings.

Source: Horgan et al., arXiv:1803.00933.
"""

from dataclasses import dataclass

from jaxrl_par import cli
from jaxrl_par.algorithms.dqn import DQNConfig
from jaxrl_par.cli import Topology
from jaxrl_par.cli.replay import ReplayConfig
from jaxrl_par.loops.pace import PaceConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.presets.dqn import Args as DQNArgs
from jaxrl_par.presets.dqn import make_agent
from jaxrl_par.replay import PriorityConfig
from jaxrl_par.topologies.configs import ThreadsConfig


@dataclass(frozen=True)
class Args(DQNArgs):
    """DQN from prioritised replay that actors in threads fill: Ape-X."""

    env_name: str = "LunarLander-v3"
    topology: Topology = "threads"
    num_envs: int = 16
    unroll_length: int = 16
    total_steps: int = 1_000_000
    threads: ThreadsConfig = ThreadsConfig(
        num_actors=2,
        schedule="decoupled",
        publish_interval=4,
        pace=PaceConfig(samples_per_insert=8.0, run_ahead=4),
    )
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-4, max_grad_norm=40.0)
    dueling: bool = True
    dqn: DQNConfig = DQNConfig(n_step=3, polyak_rate=0.005, exploration="ladder")
    replay: ReplayConfig = ReplayConfig(
        capacity=102_400,
        min_size=5_120,
        batch_size=128,
        updates_per_step=4,
        prioritised=True,
        priorities=PriorityConfig(first="recorded"),
    )


EXPERIMENT = cli.Experiment(Args, make_agent)
