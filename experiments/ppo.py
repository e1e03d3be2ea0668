"""PPO on one device or several: CartPole by default. Try `--help`."""

from dataclasses import dataclass

from jaxrl_par import cli, training
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.ppo import PPOConfig, ppo
from jaxrl_par.errors import at_least
from jaxrl_par.loops import epochs
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.compiled import compiled


@dataclass(frozen=True)
class Args(cli.OnPolicyArgs):
    """Proximal policy optimisation on a gymnax environment."""

    num_envs: int = 8
    unroll_length: int = 64
    total_steps: int = 200_000
    num_epochs: int = 4
    """Passes over the rows of an unroll."""
    num_minibatches: int = 4
    """Updates in each pass; must divide the rows, with memory the environments, of
    each device."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2.5e-3)
    network: NetworkConfig = NetworkConfig(shared=False)
    ppo: PPOConfig = PPOConfig()

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems()
        found += at_least(self, num_epochs=1, num_minibatches=1)
        if not found:
            rows = 1 if self.network.memory != "none" else self.unroll_length
            items = self.num_envs // self.num_devices * rows
            if items % self.num_minibatches:
                found.append(
                    f"num_minibatches must divide the {items} rows or sequences of a"
                    f" device, got {self.num_minibatches}"
                )
        return found


def run(args: Args) -> training.Trained:
    """Composes PPO and trains it."""
    env = args.make_env(1)
    network = actor_critic(env.observation_spec, env.action_spec, args.network)
    num_steps = args.num_updates * args.num_epochs * args.num_minibatches
    agent = ppo(network, make_optimizer(args.optimizer, num_steps), args.ppo)
    if args.normalize:
        agent = normalize_observations(agent)
    learner = epochs(agent, args.num_epochs, args.num_minibatches)
    program = args.place(
        lambda env, axis: compiled(learner, env, args.unroll_length, axis)
    )
    return args.train(program, learner)


if __name__ == "__main__":
    cli.main(run, Args)
