"""A3C, on CartPole by default. Try `--help`.

Threads that share parameters under a lock, as Hogwild or through a parameter server:
`--workers.store`. The same asynchrony as data, in one compiled program, is
`--topology delayed`, whose `--delays.model` says who is late.

Any environment: `--env-name Pendulum-v1` has continuous actions, `LunarLander-v3` is a
simulator, and so is CartPole with `--backend gymnasium`. For memory, `--network.memory
lstm`. The paper's workers have one environment each and sum the loss over an unroll:
`--num-envs 4 --a2c.reduction sum`, with a learning rate to match.
"""

from dataclasses import dataclass

from jaxrl_par import cli, training
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.cli import Flat
from jaxrl_par.networks import actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.training import TrainingConfig


@dataclass(frozen=True)
class Args(cli.AsyncArgs):
    """Asynchronous advantage actor-critic, by default with shared RMSProp."""

    num_envs: int = 32
    unroll_length: int = 32
    total_steps: int = 2_048_000
    optimizer: OptimizerConfig = OptimizerConfig(
        name="rmsprop", learning_rate=4e-3, max_grad_norm=1.0
    )
    a2c: A2CConfig = A2CConfig(gae_lambda=0.95, entropy_cost=0.0)
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=100)


def run(args: Args) -> training.Trained:
    """Composes A2C and trains it asynchronously."""
    env = args.example_env()
    network = actor_critic(env.observation_spec, env.action_spec, args.network)
    agent = a2c(network, make_optimizer(args.optimizer, args.num_updates), args.a2c)
    return args.train(args.place(agent), agent)


if __name__ == "__main__":
    cli.main(run, Args)
