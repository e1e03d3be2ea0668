"""Actor-learner distillation: a gated transformer learns, an LSTM acts.

I-Maze 9x9 by default; `--env-name IMaze-15x15` and `MetaFetch-7x7` are larger. The same
actor trained without a teacher, the transformer on its own, and the asymmetric
actor-critic are one option away: `--method lstm`, `gtrxl` or `asymmetric`.
"""

from dataclasses import asdict, dataclass, replace
from typing import ClassVar, Literal

import optax

from jaxrl_par import cli, export, loops, training
from jaxrl_par.algorithms.distilled import DistilledConfig, distilled
from jaxrl_par.algorithms.impala import ImpalaConfig, impala
from jaxrl_par.algorithms.vmpo import VMPOConfig, vmpo
from jaxrl_par.errors import ReadIf, at_least
from jaxrl_par.loops import DistillationConfig, Learner, learner_of
from jaxrl_par.networks import (
    Network,
    NetworkConfig,
    TransformerConfig,
    actor_critic,
    asymmetric,
)
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.topologies.configs import ThreadsConfig
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(cli.Args):
    """A learner, an actor, and how the one teaches the other. With topology = threads
    as in the paper: actors in threads on the CPU; learner, replay and distillation on
    num_devices."""

    topologies: ClassVar[tuple[str, ...]] = ("compiled", "threads", "fleet")
    lacks: ClassVar[str] = (
        "distillation, and a critic with a memory of its own, have no halves"
        " (contribute, apply), and what a run leaves is one learner's actor"
    )

    read_if: ClassVar[ReadIf] = {
        "network": ("method", ("distillation", "lstm", "asymmetric")),
        "learner": ("method", ("distillation", "gtrxl", "asymmetric")),
        "distil_optimizer": ("method", ("distillation",)),
        "behaviour_cost": ("method", ("distillation",)),
        "distilled": ("method", ("distillation",)),
        "distillation": ("method", ("distillation",)),
        "impala": ("algorithm", ("impala",)),
        "vmpo": ("algorithm", ("vmpo",)),
    }

    method: Literal["distillation", "lstm", "gtrxl", "asymmetric"] = "distillation"
    """distillation: `learner` learns and teaches `network`, which acts. lstm: `network`
    learns by itself. gtrxl: `learner` acts and learns. asymmetric: `network` learns,
    with values of `learner`."""
    algorithm: Literal["impala", "vmpo"] = "impala"
    """What the learner learns by."""
    env_name: str = "IMaze-9x9"
    num_envs: int = 64
    total_steps: int = 3_000_000
    show_previous: bool = True
    network: NetworkConfig = NetworkConfig(
        widths=(64,), activation="relu", memory="lstm", memory_width=128
    )
    """What acts, but for `--method gtrxl`."""
    learner: NetworkConfig = NetworkConfig(
        widths=(64,),
        activation="relu",
        memory="gtrxl",
        memory_width=64,
        transformer=TransformerConfig(num_layers=2, num_heads=4, memory_length=32),
    )
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3, anneal=False)
    """For what learns from rewards."""
    distil_optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=1e-3, anneal=False
    )
    """For the actor that is taught."""
    behaviour_cost: float = 0.1
    """Weight of KL(pi_A || pi_L) in the learner's loss, while it has an actor to teach:
    in place of the algorithm's own."""
    impala: ImpalaConfig = ImpalaConfig(entropy_cost=0.01)
    vmpo: VMPOConfig = VMPOConfig()
    distilled: DistilledConfig = DistilledConfig()
    distillation: DistillationConfig = DistillationConfig()
    threads: ThreadsConfig = ThreadsConfig(schedule="lockstep")
    onnx: bool = False
    """Leave the actor as ONNX too, which the extra of that name writes."""

    @property
    def actor(self) -> NetworkConfig:
        """The network of what acts."""
        return self.learner if self.method == "gtrxl" else self.network

    def largest_product(self) -> int:
        return max(self.product_of(x) for x in (self.network, self.learner))

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems() + at_least(self, behaviour_cost=0)
        if not found:
            share = self.lanes // self.num_devices
            if self.distillation.capacity % share:
                found.append(
                    f"distillation.capacity must be a multiple of the {share}"
                    f" environments of a device, got {self.distillation.capacity}"
                )
        return found + (export.onnx_problems(asdict(self.actor)) * self.onnx)


def make_learner(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Learner:
    """The method's, for these observations and actions."""
    small = actor_critic(*specs, args.network)
    large = actor_critic(*specs, args.learner)
    if args.method == "distillation":
        student_optimizer = args.make_optimizer(args.distil_optimizer)
        student = distilled(small, student_optimizer, args.distilled)
        cost = {"behaviour_cost": args.behaviour_cost}
        own = {
            "vmpo": replace(args.vmpo, **cost),
            "impala": replace(args.impala, **cost),
        }
        teacher = rewarded(large, optimizer, replace(args, **own))
        said = loops.Teacher(large.initial_carry, large.unroll)
        return loops.distillation(student, teacher, said, args.distillation)
    if args.method == "asymmetric":

        def advance(params, memory, trajectory):
            return large.unroll(params["critic"], memory, trajectory.rows)[1]

        agent = rewarded(asymmetric(small, large), optimizer, args)
        remember = loops.Remember(large.initial_carry, advance)
        return loops.remembering(agent, remember)
    alone = small if args.method == "lstm" else large
    return learner_of(rewarded(alone, optimizer, args))


def rewarded(
    network: Network, optimizer: optax.GradientTransformation, args: Args
) -> Agent:
    """What learns from rewards."""
    if args.algorithm == "vmpo":
        return vmpo(network, optimizer, args.vmpo)
    return impala(network, optimizer, args.impala)


def leave(args: Args, learner: Learner, trained: training.Trained) -> None:
    """Exports what acts."""
    observation_spec, action_spec = args.specs()
    params = learner.params(trained.run.learner)
    is_large = args.actor.memory == "gtrxl"
    numpy = export.for_numpy(args.actor, observation_spec)
    export.write(
        trained.directory.actor,
        network=args.actor,
        observation_spec=observation_spec,
        action_spec=action_spec,
        params=params["actor"] if args.method == "asymmetric" else params,
        batch_sizes=(1, 16, 64) if is_large else None,
        numpy=numpy,
        onnx=args.onnx,
    )


EXPERIMENT = cli.Experiment(Args, make_learner, leave)
