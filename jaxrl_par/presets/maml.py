"""Meta-learning by gradients: MAML, first-order MAML and Reptile, of REINFORCE.

The step that all tasks teach is an optimizer's, or by `--outer trust_region` searched
for as far as the KL of adapted policies may go, as published.

Tasks are drawn anew in each step, so what the metrics say is of tasks that nothing was
learned of before. At its end a run writes `adaptation.json`: mean returns in 40 more
tasks after 0, 1, 2 and 3 gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import jax
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxrl_par import cli
from jaxrl_par.algorithms.reinforce import ReinforceConfig, make_batch, reinforce
from jaxrl_par.axis import Axis
from jaxrl_par.cli import Flat
from jaxrl_par.cli.run import evaluation_key
from jaxrl_par.envs import Environment
from jaxrl_par.envs.tasks.base import Tasks
from jaxrl_par.envs.tasks.episodes import episodes
from jaxrl_par.envs.tasks.goal_velocity import goal_velocity
from jaxrl_par.envs.tasks.navigation import navigation
from jaxrl_par.errors import ReadIf, at_least, unknown_name
from jaxrl_par.hosts.collective import here
from jaxrl_par.loops import Learner, Program
from jaxrl_par.loops.adaptation import adaptation, returns_after
from jaxrl_par.loops.inner_steps import AdaptationConfig
from jaxrl_par.loops.outer_steps import Outer
from jaxrl_par.networks import NetworkConfig, actor_critic
from jaxrl_par.networks.twice import Scores, twice_differentiable
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.training import Trained, TrainingConfig
from jaxrl_par.training.files import write_json
from jaxrl_par.trust_region import TrustRegionConfig
from jaxrl_par.types import Agent, Params, Specs, Trajectory

TASKS: dict[str, Callable[[int], Tasks]] = {
    "Navigation": navigation,
    "GoalVelocity": goal_velocity,
}
"""Families of tasks by name, from the steps of an episode."""
_NUM_TASKS, _NUM_STEPS = 40, 3


@dataclass(frozen=True)
class Args(cli.Args):
    """MAML, first-order MAML and Reptile."""

    read_if: ClassVar[ReadIf] = {
        "optimizer": ("outer", ("optimizer",)),
        "region": ("outer", ("trust_region",)),
        "scores": ("outer", ("optimizer",)),
    }
    """What each of these fields is for: another one, and its values."""
    topologies: ClassVar[tuple[str, ...]] = ("compiled",)
    lacks: ClassVar[str] = "tasks' own parameters, with which they act, are there alone"

    env_name: str = "Navigation"
    """Navigation: to a goal in the plane; GoalVelocity: at a velocity."""
    num_envs: int = 20
    """Tasks of a step, as many on each device."""
    episodes: int = 10
    """Those that each task has for a gradient, side by side."""
    unroll_length: int = 100
    """Steps after which an episode is cut."""
    total_steps: int = 6_000_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-3, anneal=False)
    """Of the step that is learned from all tasks."""
    outer: Literal["optimizer", "trust_region"] = "optimizer"
    """What takes that step. trust_region: a search over all tasks, as far as the KL of
    adapted policies may go; no optimizer is asked."""
    region: TrustRegionConfig = TrustRegionConfig()
    network: NetworkConfig = NetworkConfig(widths=(32, 32), shared=False)
    adaptation: Flat[AdaptationConfig] = AdaptationConfig(inner_rate=0.005)
    scores: Scores = "episode"
    """What maml's second derivative knows of how actions are drawn: exactly all, or
    each action's own probability alone, which is biased and of less variance."""
    reinforce: ReinforceConfig = ReinforceConfig(
        baseline="leave_one_out", reduction="mean"
    )
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=1)

    @property
    def rows_per_update(self) -> int:
        """The most environment steps of a step of training."""
        gradients = self.adaptation.inner_steps + 1
        return self.num_envs * self.episodes * self.unroll_length * gradients

    @property
    def is_pure(self) -> bool:
        """All of them are."""
        return True

    def tasks(self) -> Tasks:
        """The family."""
        return TASKS[self.env_name](self.unroll_length)

    def make_env(self, num_envs: int) -> Environment:
        """Episodes in tasks of their own."""
        return episodes(self.tasks(), num_envs)

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems() + at_least(self, episodes=1)
        for name in ("show_previous", "normalize"):
            if getattr(self, name):
                found.append(f"{name} is not for tasks: leave it out")
        if self.scores != type(self).scores and self.adaptation.method != "maml":
            method = self.adaptation.method
            found.append(f"scores is for method = maml, not {method}: leave it out")
        if self.outer == "trust_region":
            found += self._search_problems()
        return found

    def _search_problems(self) -> list[str]:
        found = []
        if self.adaptation.method == "reptile":
            found.append(
                "outer = trust_region is for method = maml or fomaml, not reptile,"
                " which has no gain to be searched for"
            )
        if self.reinforce.baseline == "learned":
            found.append(
                "reinforce.baseline must not be learned with outer = trust_region: a"
                " search moves policies alone, and values would never be learned"
            )
        return found

    def environment_problems(self) -> list[str]:
        """A family of tasks that there is not."""
        if self.env_name in TASKS:
            return []
        return [f"env_name: {unknown_name('family of tasks', self.env_name, TASKS)}"]

    def make_program(self, learner: Learner, env: Environment, axis: Axis) -> Program:
        """Adapts to new tasks, then a step."""
        sizes = env.num_envs, self.episodes, self.unroll_length
        given = learner.actor, self.tasks(), self.adaptation, *sizes
        outer = self.make_outer() if self.outer == "trust_region" else None
        return adaptation(*given, outer=outer, axis=axis)

    def make_outer(self) -> Outer:
        """What a search needs to know of REINFORCE."""
        network = actor_critic(*self.specs(), self.network)

        def policies(params: Params, trajectory: Trajectory) -> Any:
            return network.unroll(params, trajectory.carry, trajectory.rows)[0][0]

        def advantages(trajectory: Trajectory) -> Float[Array, "T E"]:
            batch = make_batch(trajectory, self.reinforce, Axis())
            return batch.returns - batch.baseline

        return Outer(policies, advantages, self.region)


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """REINFORCE for these observations and actions, to be differentiated again."""
    network = actor_critic(*specs, args.network)
    if args.outer == "optimizer":
        network = twice_differentiable(network, args.scores)
    return reinforce(network, optimizer, args.reinforce)


def leave(args: Args, learner: Learner, trained: Trained) -> None:
    """Writes what gradients gain in new tasks, and says it."""
    config = replace(args.adaptation, inner_steps=_NUM_STEPS)
    sizes = _NUM_TASKS, args.episodes, args.unroll_length
    test = jax.jit(returns_after(learner.actor, args.tasks(), config, *sizes))
    run = here(trained.run)
    means = np.mean(test(run.learner, evaluation_key(run)), axis=0).tolist()
    told: dict[str, Any] = {"num_tasks": _NUM_TASKS, "returns_after": means}
    write_json(trained.directory.path / "adaptation.json", told)
    shown = ", ".join(f"{x:.2f}" for x in means)
    print(f"mean return after 0 to {_NUM_STEPS} gradients: {shown}")


EXPERIMENT = cli.Experiment(Args, make_agent, leave=leave)
