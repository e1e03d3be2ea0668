"""Evolution strategies: perturbed parameters play, and devices exchange their fitness.

No gradient of the network is computed, so any policy and any environment will do. Those
that are simulators are played by workers, in threads or in a fleet.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import optax

from jaxrl_par import cli
from jaxrl_par.algorithms.es import ESConfig, es
from jaxrl_par.axis import Axis
from jaxrl_par.cli import Flat
from jaxrl_par.envs import Environment
from jaxrl_par.errors import above, at_least
from jaxrl_par.loops import Engine, Learner, Program, evolution
from jaxrl_par.networks import NetworkConfig, policy_network
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.topologies import fleet as in_fleet
from jaxrl_par.topologies import generations as in_threads
from jaxrl_par.topologies.generations import GenerationsConfig, PartsConfig
from jaxrl_par.training import TrainingConfig
from jaxrl_par.types import Agent, Specs


@dataclass(frozen=True)
class Args(cli.Args):
    """OpenAI's evolution strategies."""

    topologies: ClassVar[tuple[str, ...]] = ("compiled", "workers", "fleet")
    lacks: ClassVar[str] = "it learns of whole episodes, and of no gradient"
    fleet_of: ClassVar[str] = "workers"
    goes_on: ClassVar[bool] = False

    num_envs: int = 128
    """Members of a generation, an even number on each device, or in each part of those
    that workers play."""
    episodes: int = 1
    """Those that each member plays, side by side."""
    unroll_length: int = 500
    """Steps of the longest episode."""
    cap_factor: float | None = 2.0
    """Cut members' episodes at so many times the mean length of the generation before.
    None: only at unroll_length."""
    parts: PartsConfig = PartsConfig()
    """What workers play, here or in a fleet."""
    total_steps: int = 2_000_000
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-2, anneal=False)
    network: NetworkConfig = NetworkConfig(widths=(32,))
    es: ESConfig = ESConfig()
    training: Flat[TrainingConfig] = TrainingConfig(log_interval=1)

    @property
    def rows_per_update(self) -> int:
        """The most environment steps of a generation."""
        own = 1 if self.topology == "compiled" else self.shared_by[1]
        return (self.num_envs + own) * self.episodes * self.unroll_length

    @property
    def shared_by(self) -> tuple[str, int]:
        """Who has members of its own, and how many of them there are."""
        if self.topology == "compiled":
            return super().shared_by
        return "parts.num_parts", self._generations.num_parts

    @property
    def _generations(self) -> GenerationsConfig:
        workers = self.workers
        return GenerationsConfig(workers.num_workers, self.parts, workers.supervision)

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems() + at_least(self, episodes=1)
        found += above(self, cap_factor=0)
        if self.es.reference_rows:
            where = "which es.reference_rows = 0 turns off"
            if self.network.memory != "none":
                found.append(
                    f"network.memory must be none for a reference batch, {where}"
                )
            if self.normalize:
                found.append(f"normalize: a reference batch does it, {where}")
        if self.topology not in self.topologies or found:
            return found
        shared = self.shared_by[1]
        if self.num_envs % (2 * shared):
            of = "device" if self.topology == "compiled" else "part"
            found.append(
                f"num_envs must be members in pairs, as many for each {of} of {shared}:"
                f" a multiple of {2 * shared}, got {self.num_envs}"
            )
        if self.topology == "compiled":
            return found
        if self.training.info_metrics:
            found.append("info_metrics: members tell of their fitness alone")
        if self.backend == "processes":
            wrong = "would start them anew for each member: take gymnasium or envpool"
            found.append(f"backend: processes {wrong}")
        return found + self._generations.problems()

    def unread(self, name: str) -> str:
        """As `cli.Args.unread`: workers play here, and have no gradients."""
        part = name.partition(".")[0]
        if part == "parts" and self.topology == "compiled":
            return "is for topology = workers or fleet, not compiled"
        if part == "workers" and self.system == "workers":
            played = name.startswith(("workers.num_workers", "workers.supervision"))
            return "" if played else "is for gradients, and members have none"
        return "" if name == "normalize" else super().unread(name)

    def make_program(self, learner: Learner, env: Environment, axis: Axis) -> Program:
        """Whole episodes of all members, then a step."""
        return evolution(
            learner.actor,
            self.make_env(self.episodes),
            self.es.noise,
            env.num_envs,
            self.unroll_length,
            cap_factor=self.cap_factor,
            axis=axis,
        )

    def make_engine(self, learner: Learner) -> Engine:
        """Members in workers, or a recorded run of those once more."""
        one = self.make_env(self.episodes) if self.is_pure else self._simulators
        given = (
            learner.actor, one, self.es.noise, self.num_envs, self.unroll_length,
            self._generations,
        )  # fmt: skip
        cap = self.cap_factor
        if self.repeat is not None:
            path = Path(self.repeat)
            return in_threads.repeat_recorded(*given, path, cap_factor=cap)
        if self.topology == "fleet":
            where = self.fleet
            return in_fleet.fleet_of_evaluators(*given, cap_factor=cap, fleet=where)
        return in_threads.generations(*given, cap_factor=cap)

    @property
    def _simulators(self) -> Any:
        return partial(self.make_host_env, num_envs=self.episodes)


def make_agent(
    args: Args, specs: tuple[Specs, Specs], optimizer: optax.GradientTransformation
) -> Agent:
    """Evolution strategies for these observations and actions."""
    return es(policy_network(*specs, args.network), optimizer, args.es)


EXPERIMENT = cli.Experiment(Args, make_agent)
