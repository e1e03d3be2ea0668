"""IMPALA with actor threads, for simulators: LunarLander by default. Try `--help`."""

from dataclasses import dataclass

from jaxrl_par import random, training
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer


@dataclass(frozen=True)
class Args(training.ThreadsArgs):
    """IMPALA on a simulator: actors in threads, V-trace for the lag of their data."""

    total_steps: int = 2_000_000
    optimizer: OptimizerConfig = OptimizerConfig("rmsprop", learning_rate=2e-3)
    network: NetworkConfig = NetworkConfig(widths=(64, 64), shared=False)
    impala: ImpalaConfig = ImpalaConfig(vtrace_lambda=0.95)


def run(args: Args) -> training.Trained:
    """Composes IMPALA and trains it."""
    env = args.make_env(random.key(args.seed), 1)
    env.close()
    network = actor_critic(env.observation_spec, env.action_spec, args.network)
    optimizer = make_optimizer(args.optimizer, args.num_updates)
    agent = impala(network, optimizer, args.impala)
    if args.normalize:
        agent = normalize_observations(agent)
    return args.train(args.place(agent), agent)


if __name__ == "__main__":
    training.main(run, Args)
