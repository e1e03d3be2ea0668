"""PPO with actor threads in lockstep: solves LunarLander. Try `--help`."""

from dataclasses import dataclass

from jaxrl_par import cli, random, training
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.ppo import PPOConfig, ppo
from jaxrl_par.errors import at_least
from jaxrl_par.loops import epochs
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.threads import ThreadsConfig


@dataclass(frozen=True)
class Args(cli.ThreadsArgs):
    """PPO on a simulator: actors act for the next update while this one is learned."""

    total_steps: int = 3_000_000
    num_envs: int = 16
    unroll_length: int = 128
    num_epochs: int = 4
    """Passes over the rows of a batch."""
    num_minibatches: int = 8
    """Updates in each pass; must divide the rows, with memory the environments, of
    each device."""
    threads: ThreadsConfig = ThreadsConfig(num_actors=1, schedule="lockstep")
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    network: NetworkConfig = NetworkConfig(shared=False)
    ppo: PPOConfig = PPOConfig(entropy_cost=0.0)

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems()
        found += at_least(self, num_epochs=1, num_minibatches=1)
        if not found:
            rows = 1 if self.network.memory != "none" else self.unroll_length
            lanes = self.threads.batch * self.envs_per_actor // self.num_devices
            if lanes * rows % self.num_minibatches:
                found.append(
                    f"num_minibatches must divide the {lanes * rows} rows or sequences"
                    f" of a device, got {self.num_minibatches}"
                )
        return found


def run(args: Args) -> training.Trained:
    """Composes PPO and trains it."""
    env = args.make_env(random.key(args.seed), 1)
    env.close()
    network = actor_critic(env.observation_spec, env.action_spec, args.network)
    num_steps = args.num_updates * args.num_epochs * args.num_minibatches
    agent = ppo(network, make_optimizer(args.optimizer, num_steps), args.ppo)
    if args.normalize:
        agent = normalize_observations(agent)
    learner = epochs(agent, args.num_epochs, args.num_minibatches)
    return args.train(args.place(learner), learner)


if __name__ == "__main__":
    cli.main(run, Args)
