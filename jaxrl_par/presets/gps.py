"""Guided policy search: controllers that are found from few rollouts teach a policy.

Each environment is an initial state with a controller of its own, planned in dynamics
that are fitted to its rollouts. What acts in the end, and is evaluated from initial
states that nobody was shown, is the global policy.
"""

from dataclasses import dataclass
from typing import ClassVar

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.gps import GPSConfig, global_policy, guided_policy_search
from jaxrl_par.axis import Axis
from jaxrl_par.cli import Flat
from jaxrl_par.envs import Environment
from jaxrl_par.envs.control import Control, controlled
from jaxrl_par.envs.registry import alone
from jaxrl_par.errors import at_least
from jaxrl_par.guidance import Guide
from jaxrl_par.loops import Learner, Program
from jaxrl_par.loops.guided import Search, Sizes, guided
from jaxrl_par.loops.guided_turns import guided_turns, own_pace
from jaxrl_par.networks import NetworkConfig, policy_network
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.training import TrainingConfig
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(cli.Args):
    """Guided policy search, by mirror descent or BADMM."""

    topologies: ClassVar[tuple[str, ...]] = ("compiled", "delayed")
    lacks: ClassVar[str] = "controllers begin again and again in states of their own"

    env_name: str = "Door-60"
    """One whose reward is smooth in state and action: ours, or such as Pendulum-v1."""
    num_envs: int = 40
    """Initial states, with a controller each, as many on each device or worker."""
    unroll_length: int = 60
    """Steps of an episode, for which a controller plans."""
    rollouts: int = 4
    """Of each controller, between two of its steps."""
    updates: int = 200
    """Of the global policy, between two steps of the controllers; with topology =
    delayed in the mean time that a worker takes for its rollouts."""
    batch_size: int = 32
    """Rows of each initial state in one of them."""
    kept_lessons: int = 5
    """Steps of the controllers from whose lessons the global policy learns."""
    total_steps: int = 135_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-3)
    """Of the global policy."""
    network: NetworkConfig = NetworkConfig(widths=(64, 64))
    gps: GPSConfig = GPSConfig()
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=1)

    @property
    def rows_per_update(self) -> int:
        """Environment steps between two steps of the controllers."""
        return self.lanes * self.rollouts * self.unroll_length

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems()
        found += at_least(self, rollouts=1, updates=1, batch_size=1, kept_lessons=1)
        for name in ("show_previous", "normalize"):
            if getattr(self, name):
                found.append(f"{name} is not for guided policy search: leave it out")
        if self.topology == "delayed" and self.delays.model in ("constant", "recorded"):
            told = "delays.model must say how long workers take"
            found.append(f"{told}, got {self.delays.model}")
        return found

    def unread(self, name: str) -> str:
        """As `cli.Args.unread`: no gradient is late here."""
        if name.startswith(("workers.staleness", "workers.outliers", "delays.storage")):
            return "is for gradients of workers, who have none here"
        return super().unread(name)

    def environment_problems(self) -> list[str]:
        """Environments that there are not, or whose state cannot be known."""
        if self.owns_environments:
            return [
                "guided policy search looks into an environment's state: name one of"
                " ours or gymnax's, and not one of your own"
            ]
        return super().environment_problems()

    def control(self) -> Control:
        """The environment as a problem of control.

        Raises:
          RefusedError: it is none.
        """
        return controlled(alone(self.env_name), self.env_name, self.unroll_length)

    def guide(self, control: Control) -> Guide:
        """Its local policies."""
        sizes = control.num_steps, control.state_size, control.num_actions
        return guided_policy_search(control.cost, *sizes, self.gps)

    def search(self, learner: Learner, num_states: int) -> Search:
        """Of an instance or a worker that has so many initial states."""
        control = self.control()
        updates = self.updates, self.batch_size, self.kept_lessons
        sizes = Sizes(num_states, self.rollouts, *updates)
        return Search(learner.actor, control, self.guide(control), sizes)

    def make_program(self, learner: Learner, env: Environment, axis: Axis) -> Program:
        """Controllers take a step, then the global policy learns."""
        return guided(self.search(learner, env.num_envs), axis=axis)

    def make_delayed(self, learner: Learner) -> Program:
        """Workers and the trainer, each at its own pace."""
        number = self.workers.num_workers
        given = number, self.max_updates, self.seed
        turns = own_pace(self.delays.durations(*given), self.updates)
        return guided_turns(self.search(learner, self.envs_each), turns, number)


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """The global policy for these observations and actions."""
    network = policy_network(*specs, args.network)
    return global_policy(network, optimizer, args.gps.initial_std)


EXPERIMENT = cli.Experiment(Args, make_agent)
