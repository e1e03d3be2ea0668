"""Sample-parallel policy gradient: every worker plays an episode, then all learn."""

from dataclasses import dataclass

from jaxrl_par import cli, training
from jaxrl_par.algorithms.normalize import normalize_observations
from jaxrl_par.algorithms.reinforce import ReinforceConfig, reinforce
from jaxrl_par.cli import Flat
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.compiled import episodic
from jaxrl_par.training import TrainingConfig


@dataclass(frozen=True)
class Args(cli.OnPolicyArgs):
    """REINFORCE on a gymnax environment, the lecture's parallel policy gradient."""

    num_envs: int = 64
    """Workers, each with an episode for every update; a multiple of num_devices."""
    unroll_length: int = 501
    """Rows for the longest episode: its steps, and one that shows its end."""
    total_steps: int = 3_206_400
    """Rows at most; an update takes num_envs * unroll_length of them, however short its
    episodes turn out."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-2)
    network: NetworkConfig = NetworkConfig(widths=(32,), shared=False)
    reinforce: ReinforceConfig = ReinforceConfig()
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=1)


def run(args: Args) -> training.Trained:
    """Composes REINFORCE and trains it."""
    env = args.make_env(1)
    network = actor_critic(env.observation_spec, env.action_spec, args.network)
    optimizer = make_optimizer(args.optimizer, args.num_updates)
    agent = reinforce(network, optimizer, args.reinforce)
    if args.normalize:
        agent = normalize_observations(agent)
    program = args.place(
        lambda env, axis: episodic(agent, env, args.unroll_length, axis)
    )
    return args.train(program, agent)


if __name__ == "__main__":
    cli.main(run, Args)
