"""A2C on one device or several: solves CartPole in seconds. Try `--help`."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import optax

from jaxrl_par import envs, loops, training
from jaxrl_par.algorithms.a2c import A2CConfig, a2c
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.topologies.sharded import data_mesh, sharded, share
from jaxrl_par.training import Flat, TrainingConfig

OPTIMIZERS = {"adam": optax.adam, "rmsprop": partial(optax.rmsprop, decay=0.99)}


@dataclass(frozen=True)
class Args:
    """Batched advantage actor-critic on a gymnax environment."""

    env_name: str = "CartPole-v1"
    """As gymnax registers it."""
    seed: int = 0
    num_devices: int = 1
    """Devices that share the environments and average their gradients."""
    num_envs: int = 32
    """Environments in total, a multiple of num_devices."""
    unroll_length: int = 32
    """Steps of each environment for an update."""
    total_steps: int = 3_072_000
    """Environment steps, rounded down to whole updates."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    learning_rate: float = 7e-3
    """Step size, decayed linearly to 0."""
    max_grad_norm: float = 1.0
    """Global norm to which a gradient is clipped."""
    network: NetworkConfig = NetworkConfig()
    a2c: A2CConfig = A2CConfig(gae_lambda=0.95, entropy_cost=0.0)
    training: Flat[TrainingConfig] = TrainingConfig()

    @property
    def num_updates(self) -> int:
        """Updates that the environment steps allow."""
        return self.total_steps // (self.num_envs * self.unroll_length)

    def problems(self) -> list[str]:
        """What is out of range."""
        found = training.at_least(self, num_devices=1, num_envs=1, unroll_length=1)
        found += training.above(self, learning_rate=0, max_grad_norm=0)
        found += training.environment_problems(self.env_name)
        if not found and self.num_envs % self.num_devices:
            found.append(
                f"num_envs must be a multiple of num_devices = {self.num_devices}, got"
                f" {self.num_envs}"
            )
        if not found and self.num_updates < 1:
            found.append(
                "total_steps must allow an update, num_envs * unroll_length ="
                f" {self.num_envs * self.unroll_length}, got {self.total_steps}"
            )
        return found


def run(args: Args) -> training.Trained:
    """Composes A2C and trains it."""
    make_env = partial(envs.make, args.env_name)
    env = make_env(share(args.num_envs, args.num_devices))
    network = actor_critic(env.observation_spec, env.action_spec, args.network)
    schedule = optax.linear_schedule(args.learning_rate, 0.0, args.num_updates)
    optimizer = optax.chain(
        optax.clip_by_global_norm(args.max_grad_norm),
        OPTIMIZERS[args.optimizer](schedule),
    )
    agent = a2c(network, optimizer, args.a2c)
    if args.num_devices == 1:
        program = loops.on_policy(agent, env, args.unroll_length)
    else:
        program = loops.on_policy(agent, env, args.unroll_length, axis_name="data")
        program = sharded(program, data_mesh(args.num_devices))
    return training.experiment(
        program,
        agent,
        make_env,
        args,
        args.training,
        seed=args.seed,
        num_updates=args.num_updates,
    )


if __name__ == "__main__":
    training.main(run, Args)
