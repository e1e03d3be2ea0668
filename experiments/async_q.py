"""Asynchronous Q-learning, SARSA and n-step Q-learning, on CartPole. Try `--help`.

`--q.method` chooses. Threads share parameters as `--workers.store` says; the same
asynchrony as data, in one compiled program, is `--topology delayed`. Batched Q-learning
without any is that with one worker: `--topology delayed --workers.num-workers 1`.
"""

from dataclasses import dataclass

from jaxrl_par import cli, training
from jaxrl_par.algorithms.q_learning import QConfig, q_learning
from jaxrl_par.cli import Flat
from jaxrl_par.networks import q_network
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.training import TrainingConfig


@dataclass(frozen=True)
class Args(cli.AsyncArgs):
    """Asynchronous Q-learning without replay. The batched, synchronous form of it is
    --topology delayed --workers.num-workers 1."""

    num_envs: int = 32
    unroll_length: int = 16
    total_steps: int = 2_000_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3, max_grad_norm=10.0)
    q: QConfig = QConfig()
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=125)


def run(args: Args) -> training.Trained:
    """Composes Q-learning and trains it asynchronously."""
    env = args.example_env()
    network = q_network(env.observation_spec, env.action_spec, args.network)
    optimizer = make_optimizer(args.optimizer, args.num_updates)
    agent = q_learning(network, optimizer, args.q)
    return args.train(args.place(agent), agent)


if __name__ == "__main__":
    cli.main(run, Args)
