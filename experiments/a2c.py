"""A2C on one device or several: solves CartPole in seconds. Try `--help`."""

from dataclasses import dataclass

from jaxrl_par import cli, training
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.networks import actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.compiled import compiled


@dataclass(frozen=True)
class Args(cli.OnPolicyArgs):
    """Batched advantage actor-critic on a gymnax environment."""

    total_steps: int = 3_072_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=7e-3, max_grad_norm=1.0)
    a2c: A2CConfig = A2CConfig(gae_lambda=0.95, entropy_cost=0.0)


def run(args: Args) -> training.Trained:
    """Composes A2C and trains it."""
    env = args.make_env(1)
    network = actor_critic(env.observation_spec, env.action_spec, args.network)
    optimizer = make_optimizer(args.optimizer, args.num_updates)
    agent = a2c(network, optimizer, args.a2c)
    if args.normalize:
        agent = normalize_observations(agent)
    program = args.place(
        lambda env, axis: compiled(agent, env, args.unroll_length, axis)
    )
    return args.train(program, agent)


if __name__ == "__main__":
    cli.main(run, Args)
