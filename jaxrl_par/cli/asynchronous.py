"""What asynchronous experiments share: environments, budget, workers and delays."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax

from jaxrl_par import envs
from jaxrl_par.cli.config import Flat
from jaxrl_par.cli.entry import environment_problems, experiment, host_experiment
from jaxrl_par.envs import Environment, host
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.host import wrappers as host_wrappers
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.errors import at_least
from jaxrl_par.loops import Engine, Learner, Program
from jaxrl_par.loops.records import RecordError
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.topologies.delayed import DelaysConfig, delayed
from jaxrl_par.topologies.workers import WorkersConfig, repeat_recorded, workers
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.runner import Trained
from jaxrl_par.training.settings import TrainingConfig
from jaxrl_par.types import Agent, PRNGKey


@dataclass(frozen=True)
class AsyncArgs:
    """Environments, budget, workers, network and optimizer of an experiment."""

    env_name: str = "CartPole-v1"
    """Name in gymnax, or one of ours. Any other name is a simulator's, as
    Gymnasium, ALE ("ALE/Pong-v5") or EnvPool register it."""
    backend: host.Backend | None = None
    """What steps simulators: `envs.host.make` describes the choices. With one, every
    name is a simulator's, "CartPole-v1" too."""
    seed: int = 0
    topology: Literal["workers", "delayed"] = "workers"
    """workers: threads, as fast as they are. delayed: one compiled program, in which
    gradients come as late as `delays` says."""
    num_envs: int = 16
    """Environments of all workers."""
    unroll_length: int = 20
    """Steps of each environment for a gradient."""
    total_steps: int = 1_000_000
    """Rows of all workers, rounded down to whole gradients. Rows that only show the end
    of an episode are among them; steps in the metrics leave them out."""
    show_previous: bool = False
    """Show the previous action and reward with each observation."""
    replay: str | None = None
    """The schedule.jsonl of a run of workers with these settings, to be repeated in one
    thread: bit for bit, but for hogwild."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Its state is shared by all workers; num_updates is the number of gradients."""
    network: NetworkConfig = NetworkConfig()
    workers: WorkersConfig = WorkersConfig()
    """Their number and what becomes of stale gradients are those of delayed too."""
    delays: DelaysConfig = DelaysConfig()
    training: Flat[TrainingConfig] = TrainingConfig()

    @property
    def num_updates(self) -> int:
        """Gradients that the budget allows."""
        return self.total_steps // (self.envs_per_worker * self.unroll_length)

    @property
    def envs_per_worker(self) -> int:
        """Environments of each worker."""
        return self.num_envs // self.workers.num_workers

    @property
    def is_pure(self) -> bool:
        """Whether environments are compiled, and no simulators."""
        return self.backend is None and envs.is_name(self.env_name)

    def make_env(self, num_envs: int) -> Environment:
        """So many pure environments, as the agent is to see them."""
        env = envs.make(self.env_name, num_envs)
        return previous_action_and_reward(env) if self.show_previous else env

    def make_simulators(
        self, key: PRNGKey, num_envs: int | None = None
    ) -> HostEnvironment:
        """Simulators as the agent is to see them; by default those of a worker."""
        env = host.make(
            self.env_name,
            num_envs or self.envs_per_worker,
            seed=int(jax.random.bits(key)) >> 1,
            backend=self.backend or "auto",
        )
        if self.show_previous:
            return host_wrappers.previous_action_and_reward(env)
        return env

    def example_env(self) -> Environment | HostEnvironment:
        """For its specs: a simulator is closed already."""
        if self.is_pure:
            return self.make_env(1)
        env = self.make_simulators(jax.random.key(self.seed), 1)
        env.close()
        return env

    def place(self, learner: Agent | Learner) -> Engine | Program:
        """The learner in threads, or in a program with late gradients.

        Raises:
          TrainingError: the record to repeat is missing, damaged, or does not fit.
        """
        try:
            if self.topology == "delayed":
                return self._delayed(learner)
            env = self.make_simulators
            if self.is_pure:
                env = self.make_env(self.envs_per_worker)
            parts = (learner, env, self.unroll_length, self.workers)
            if self.replay is None:
                return workers(*parts)
            return repeat_recorded(*parts, Path(self.replay))
        except RecordError as error:
            option = "replay" if self.replay else "delays.record"
            raise TrainingError(f"{option}: {error}") from error

    def train(self, engine: Engine | Program, learner: Agent | Learner) -> Trained:
        """Trains, evaluates, draws an episode where it can, and reports on threads.

        Raises:
          TrainingError, Interrupted: as `training.train`.
        """
        budget = {"seed": self.seed, "num_updates": self.num_updates}
        if isinstance(engine, Program) or self.is_pure:
            return experiment(
                engine, learner, self.make_env, self, self.training, **budget
            )
        return host_experiment(
            engine,
            learner,
            self.make_simulators,
            self,
            self.training,
            env_name=self.env_name,
            **budget,
        )

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_envs=1, unroll_length=1)
        found += self._environment_problems() + self._replay_problems()
        if found or self.workers.problems():
            return found
        if self.num_envs % self.workers.num_workers:
            return [
                "num_envs must be a multiple of workers.num_workers ="
                f" {self.workers.num_workers}, got {self.num_envs}"
            ]
        if self.num_updates < 1:
            found.append(
                "total_steps must allow a gradient, environments of a worker *"
                f" unroll_length = {self.envs_per_worker * self.unroll_length}, got"
                f" {self.total_steps}"
            )
        return found

    def _environment_problems(self) -> list[str]:
        if self.topology == "workers" and not self.is_pure:
            return host.problems(self.env_name, self.backend or "auto")
        if self.backend is not None:
            return [
                "backend is for simulators, which topology = delayed cannot compile:"
                f" leave it out, got {self.backend}"
            ]
        return environment_problems(self.env_name)

    def _replay_problems(self) -> list[str]:
        if self.replay is None or self.topology == "workers":
            return []
        return [
            "replay repeats a run of topology = workers; delayed follows its record"
            " with delays.model = recorded and delays.record"
        ]

    def _delayed(self, learner: Agent | Learner) -> Program:
        num_workers = self.workers.num_workers
        return delayed(
            learner,
            self.make_env(self.envs_per_worker),
            self.unroll_length,
            self.delays.schedule(num_workers, self.num_updates, self.seed),
            num_workers=num_workers,
            storage=self.delays.storage,
            staleness=self.workers.staleness,
        )
