"""Actor-learner distillation: a gated transformer learns, an LSTM acts. Try `--help`.

I-Maze 9x9 by default; `--env-name IMaze-15x15` and `MetaFetch-7x7` are larger. The same
actor trained without a teacher, the transformer on its own, and the asymmetric
actor-critic are one option away: `--method lstm`, `gtrxl` or `asymmetric`.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from jaxrl_par import cli, export, loops, training
from jaxrl_par.algorithms.distilled import DistilledConfig, distilled
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.vmpo import VMPOConfig, vmpo
from jaxrl_par.envs import Environment
from jaxrl_par.envs.host import from_pure
from jaxrl_par.loops import DistillationConfig, Engine, Learner, Program, learner_of
from jaxrl_par.networks import (
    Network,
    NetworkConfig,
    TransformerConfig,
    actor_critic,
    asymmetric,
)
from jaxrl_par.optimizers import OptimizerConfig, make_optimizer
from jaxrl_par.topologies.compiled import compiled
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, threads
from jaxrl_par.types import Agent


@dataclass(frozen=True)
class Args(cli.OnPolicyArgs):
    """A learner, an actor, and how the one teaches the other."""

    method: Literal["distillation", "lstm", "gtrxl", "asymmetric"] = "distillation"
    """distillation: `learner` learns and teaches `network`, which acts. lstm: `network`
    learns by itself. gtrxl: `learner` acts and learns. asymmetric: `network` learns,
    with values of `learner`."""
    algorithm: Literal["impala", "vmpo"] = "impala"
    """What the learner learns by."""
    topology: Literal["compiled", "threads"] = "compiled"
    """compiled: all in one program, on num_devices. threads: as in the paper, actors in
    threads on the CPU; learner, replay and distillation on num_devices."""
    env_name: str = "IMaze-9x9"
    num_envs: int = 64
    unroll_length: int = 32
    total_steps: int = 3_000_000
    show_previous: bool = True
    network: NetworkConfig = NetworkConfig(
        widths=(64,), activation="relu", memory="lstm", memory_width=128
    )
    """Of the actor."""
    learner: NetworkConfig = NetworkConfig(
        widths=(64,),
        activation="relu",
        memory="gtrxl",
        memory_width=64,
        transformer=TransformerConfig(num_layers=2, num_heads=4, memory_length=32),
    )
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3, anneal=False)
    """Of whoever sees rewards."""
    distil_optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=1e-3, anneal=False
    )
    """Of the actor that is taught."""
    behaviour_cost: float = 0.1
    """Weight of KL(pi_A || pi_L) in the learner's loss, while it has an actor to teach:
    in place of the algorithm's own."""
    impala: ImpalaConfig = ImpalaConfig(entropy_cost=0.01)
    vmpo: VMPOConfig = VMPOConfig()
    distilled: DistilledConfig = DistilledConfig()
    distillation: DistillationConfig = DistillationConfig()
    threads: ThreadsConfig = ThreadsConfig(schedule="lockstep")

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems()
        share = self.num_envs // self.num_devices
        if not found and self.distillation.capacity % share:
            found.append(
                f"distillation.capacity must be a multiple of the {share} environments"
                f" of a device, got {self.distillation.capacity}"
            )
        if self.topology == "threads" and self.num_envs % self.threads.num_actors:
            found.append(
                "num_envs must be a multiple of threads.num_actors ="
                f" {self.threads.num_actors}, got {self.num_envs}"
            )
        return found


class Parts(NamedTuple):
    """What learns, and the network of what acts."""

    learner: Learner
    network: NetworkConfig


def compose(args: Args, env: Environment) -> Parts:
    """The method's agents."""
    small = actor_critic(env.observation_spec, env.action_spec, args.network)
    large = actor_critic(env.observation_spec, env.action_spec, args.learner)
    if args.method == "distillation":
        num_steps = args.num_updates * args.distillation.updates_per_step
        student = distilled(
            small, make_optimizer(args.distil_optimizer, num_steps), args.distilled
        )
        teacher = rewarded(large, args, args.behaviour_cost)
        said = loops.Teacher(large.initial_carry, large.unroll)
        learner = loops.distillation(student, teacher, said, args.distillation)
        return Parts(learner, args.network)
    if args.method == "asymmetric":
        agent = rewarded(asymmetric(small, large), args)

        def advance(params, memory, steps):
            return large.unroll(params["critic"], memory, steps)[1]

        remember = loops.Remember(large.initial_carry, advance)
        return Parts(loops.remembering(agent, remember), args.network)
    alone = args.method == "lstm"
    learner = learner_of(rewarded(small if alone else large, args))
    return Parts(learner, args.network if alone else args.learner)


def rewarded(network: Network, args: Args, behaviour_cost: float = 0.0) -> Agent:
    """Whoever learns from rewards."""
    optimizer = make_optimizer(args.optimizer, args.num_updates)
    if args.algorithm == "vmpo":
        config = replace(args.vmpo, behaviour_cost=behaviour_cost)
        return vmpo(network, optimizer, config)
    config = replace(args.impala, behaviour_cost=behaviour_cost)
    return impala(network, optimizer, config)


def place(args: Args, learner: Learner) -> Program | Engine:
    """On devices alone, or with actors in threads and the rest on devices."""
    if args.topology == "compiled":
        return args.place(
            lambda env, axis: compiled(learner, env, args.unroll_length, axis)
        )
    num_envs = args.num_envs // args.threads.num_actors
    return threads(
        learner,
        lambda key: from_pure(args.make_env(num_envs), key),
        args.unroll_length,
        args.threads,
        data_mesh(args.num_devices),
    )


def run(args: Args) -> training.Trained:
    """Composes the method, trains it, and exports what acts."""
    env = args.make_env(1)
    parts = compose(args, env)
    trained = args.train(place(args, parts.learner), parts.learner)
    params = parts.learner.params(trained.run.learner)
    is_large = parts.network.memory == "gtrxl"
    export.write(
        trained.directory.actor,
        network=parts.network,
        observation_spec=env.observation_spec,
        action_spec=env.action_spec,
        params=params["actor"] if args.method == "asymmetric" else params,
        batch_sizes=(1, 16, 64) if is_large else None,
        numpy=not is_large,
    )
    return trained


if __name__ == "__main__":
    cli.main(run, Args)
