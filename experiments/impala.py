"""IMPALA on one device or several: Breakout-MinAtar by default. Try `--help`."""

from dataclasses import dataclass

from jaxrl_par import cli, training
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.compiled import compiled


@dataclass(frozen=True)
class Args(cli.OnPolicyArgs):
    """IMPALA with V-trace on a gymnax environment, acting and learning in turn."""

    env_name: str = "Breakout-MinAtar"
    unroll_length: int = 16
    total_steps: int = 10_000_000
    optimizer: OptimizerConfig = OptimizerConfig(
        "rmsprop", learning_rate=5e-3, max_grad_norm=1.0
    )
    network: NetworkConfig = NetworkConfig(widths=(128,), activation="relu")
    impala: ImpalaConfig = ImpalaConfig(entropy_cost=0.06)


def run(args: Args) -> training.Trained:
    """Composes IMPALA and trains it."""
    env = args.make_env(1)
    network = actor_critic(env.observation_spec, env.action_spec, args.network)
    optimizer = make_optimizer(args.optimizer, args.num_updates)
    agent = impala(network, optimizer, args.impala)
    if args.normalize:
        agent = normalize_observations(agent)
    program = args.place(
        lambda env, axis: compiled(agent, env, args.unroll_length, axis)
    )
    return args.train(program, agent)


if __name__ == "__main__":
    cli.main(run, Args)
