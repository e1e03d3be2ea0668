"""IMPALA with actor threads, for simulators: LunarLander by default. Try `--help`."""

from dataclasses import dataclass

from jaxrl_par import cli, random, training
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.errors import at_least
from jaxrl_par.loops import epochs
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.threads import ThreadsConfig


@dataclass(frozen=True)
class Args(cli.ThreadsArgs):
    """IMPALA on a simulator: actors in threads, V-trace for the lag of their data."""

    total_steps: int = 3_000_000
    num_envs: int = 16
    unroll_length: int = 128
    num_epochs: int = 4
    """Passes over a batch, which V-trace corrects for too."""
    num_minibatches: int = 8
    """Updates in each pass; must divide the environments that a device learns from."""
    threads: ThreadsConfig = ThreadsConfig(num_actors=1, schedule="lockstep")
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    network: NetworkConfig = NetworkConfig(shared=False)
    impala: ImpalaConfig = ImpalaConfig(
        gamma=0.999, vtrace_lambda=0.98, reward_scale=0.05, entropy_cost=0.001
    )

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems()
        found += at_least(self, num_epochs=1, num_minibatches=1)
        if not found:
            lanes = self.threads.batch * self.envs_per_actor // self.num_devices
            if lanes % self.num_minibatches:
                found.append(
                    f"num_minibatches must divide the {lanes} environments that a"
                    f" device learns from, got {self.num_minibatches}"
                )
        return found


def run(args: Args) -> training.Trained:
    """Composes IMPALA and trains it."""
    env = args.make_env(random.key(args.seed), 1)
    env.close()
    network = actor_critic(env.observation_spec, env.action_spec, args.network)
    num_steps = args.num_updates * args.num_epochs * args.num_minibatches
    optimizer = make_optimizer(args.optimizer, num_steps)
    agent = impala(network, optimizer, args.impala)
    if args.normalize:
        agent = normalize_observations(agent)
    learner = epochs(agent, args.num_epochs, args.num_minibatches)
    return args.train(args.place(learner), learner)


if __name__ == "__main__":
    cli.main(run, Args)
