"""Policy distillation: a small network learns what a run's agent thinks of all actions.

    jaxrl-par a2c --env-name Breakout-MinAtar ...
    jaxrl-par policy_distillation --teachers runs/a2c-Breakout-MinAtar \\
        --distil.temperature 1

A teacher is the folder of a run of this library, of DQN or of a policy. Several tasks
are joined by "+" in `--env-name`, with a teacher for each: one network learns them all.
Actor-Mimic is `--acts student --distil.loss cross_entropy --distil.temperature 1
--distil.feature-cost 0.01`.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import optax

from jaxrl_par import cli, compatible, envs, training
from jaxrl_par.algorithms.policy_distillation import (
    FixedTeacher,
    PolicyDistillationConfig,
    acted_by_teachers,
    policy_distillation,
)
from jaxrl_par.axis import Axis
from jaxrl_par.cli import Flat
from jaxrl_par.cli.replay import ReplayArgs, ReplayConfig
from jaxrl_par.envs import Environment
from jaxrl_par.envs.catalogue import tasks
from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import Learner, Program
from jaxrl_par.networks import NetworkConfig, of_tasks, policy_network
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.replay import Windows
from jaxrl_par.training import TrainingConfig
from jaxrl_par.training.loaded import written
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(ReplayArgs):
    """A student, its teachers, and who acts."""

    has_teachers: ClassVar[bool] = True
    """Whether there must be some."""

    teachers: tuple[str, ...] = ()
    """Folders of runs, one for each task in `env_name` and in their order."""
    checkpoint: Literal["newest", "best"] = "newest"
    """Of each teacher's run: that at its end, or the best that it kept."""
    acts: Literal["teacher", "student"] = "teacher"
    """Whose actions the student learns from. The teachers act with topology = compiled
    alone. Evaluation is of the student."""
    env_name: str = "Breakout-MinAtar"
    num_envs: int = 48
    unroll_length: int = 8
    total_steps: int = 500_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-3, max_grad_norm=10.0)
    network: NetworkConfig = NetworkConfig(channels=8, widths=(32,), activation="relu")
    distil: PolicyDistillationConfig = PolicyDistillationConfig()
    replay: ReplayConfig = ReplayConfig(
        capacity=19_200, min_size=3_840, batch_size=256, updates_per_step=4
    )
    training: Flat[TrainingConfig] = TrainingConfig(evaluation_envs=24)

    @property
    def windows(self) -> Windows:
        # What is kept of acting is a rate of exploration, or memory: whole unrolls.
        alone = self.network.memory == "none"
        return Windows(1, constant_carry=True) if alone else Windows()

    def problems(self) -> list[str]:
        """What is out of range, or does not fit the teachers."""
        found = super().problems()
        names, shared = tasks(self.env_name), self.shared_by
        if self.normalize:
            found.append(
                "normalize: a student sees what its teachers see: leave it out"
            )
        if self.acts == "teacher" and self.topology != "compiled":
            found.append(
                f"acts must be student for topology = {self.topology}, got teacher"
            )
        if len(names) > 1 and self.show_previous:
            found.append("show_previous is for one task: leave it out")
        if not found and self.envs_each % len(names):
            found.append(
                f"num_envs must be as many for each of the {len(names)} tasks, of"
                f" {shared[0]} = {shared[1]} each, got {self.num_envs}"
            )
        if self.training.evaluation_envs % len(names):
            found.append(
                f"evaluation_envs must be a multiple of the {len(names)} tasks, got"
                f" {self.training.evaluation_envs}"
            )
        return found + (self._teacher_problems() if self.has_teachers else [])

    def _teacher_problems(self) -> list[str]:
        names = tasks(self.env_name)
        if len(names) != len(self.teachers):
            told = "teachers must be a folder of a run for each task in env_name"
            return [f"{told} = {self.env_name}, got {len(self.teachers)}"]
        found = []
        for folder, name in zip(self.teachers, names, strict=True):
            try:
                known = written(folder).get("env_name")
            except training.TrainingError as error:
                found.append(f"teachers: {error}")
            else:
                told = f"teachers: {folder} is of {known}, and its task is {name}"
                found += [told] if known != name else []
        return found

    def played(self) -> "Args":
        """As `Args.played`. Teachers need not be there any more."""
        kept = super().played()
        given: dict[str, Any] = {x.name: getattr(kept, x.name) for x in fields(kept)}
        return _Alone(**given | {"teachers": (), "acts": "student"})

    def make_program(self, learner: Learner, env: Environment, axis: Axis) -> Program:
        """The student's teachers act, if they are to, and it where it is evaluated."""
        if self.acts == "teacher":
            actor = acted_by_teachers(learner.actor, loaded(self))
            learner = learner._replace(actor=actor)
        return super().make_program(learner, env, axis)


class _Alone(Args):
    """A student that does not learn any more."""

    has_teachers: ClassVar[bool] = False


def loaded(args: Args) -> list[FixedTeacher]:
    """The teachers, as far as they were trained.

    Raises:
      TrainingError: a folder is damaged.
      RefusedError: a teacher was made for other observations or actions.
    """
    found = []
    for folder, name in zip(args.teachers, tasks(args.env_name), strict=False):
        run = training.load(folder, checkpoint=args.checkpoint)
        specs = run.agent.specs or run.args.specs()
        alone = envs.make(name, 1) if len(args.teachers) > 1 else args.make_env(1)
        compatible.refuse_others(
            alone.specs,
            specs,
            f"the student of {name}",
            f"its teacher {folder} was made for",
            "A student sees and does what its teacher did",
        )
        found.append(FixedTeacher(run.agent, run.params, specs, folder))
    return found


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """The student for these observations and actions."""
    if not hasattr(specs[1], "num_values"):
        raise RefusedError(f"a student chooses one of some actions, not {specs[1]}")
    network = of_tasks(policy_network, *specs, args.network)
    return policy_distillation(network, optimizer, loaded(args), args.distil)


EXPERIMENT = cli.Experiment(Args, make_agent)
