"""What experiments on simulators share: environments, budget, threads, devices."""

from dataclasses import dataclass
from pathlib import Path

import jax

from jaxrl_par.cli.config import Flat
from jaxrl_par.cli.entry import host_experiment
from jaxrl_par.envs import host
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.host.wrappers import previous_action_and_reward
from jaxrl_par.errors import at_least
from jaxrl_par.loops import Engine, Learner
from jaxrl_par.loops.records import RecordError
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.topologies.threads import ThreadsConfig, repeat_recorded, threads
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.runner import Trained
from jaxrl_par.training.settings import TrainingConfig
from jaxrl_par.types import Agent, PRNGKey


@dataclass(frozen=True)
class ThreadsArgs:
    """Simulators, budget, threads, network, optimizer and devices of an experiment."""

    env_name: str = "LunarLander-v3"
    """Name in Gymnasium, ALE ("ALE/Pong-v5") or EnvPool."""
    backend: host.Backend = "auto"
    """What steps the simulators: `envs.host.make` describes the choices."""
    seed: int = 0
    num_devices: int = 1
    """Devices of the learner, which share each batch."""
    num_envs: int = 32
    """Environments of all actors."""
    unroll_length: int = 20
    """Steps of each environment in an unroll."""
    total_steps: int = 1_000_000
    """Rows of the stream that are learned from, rounded down to whole updates. Rows
    that only show the end of an episode are among them; steps in the metrics leave them
    out."""
    show_previous: bool = False
    """Show the previous action and reward with each observation."""
    normalize: bool = False
    """Normalise observations by their running mean and standard deviation."""
    replay: str | None = None
    """The schedule.jsonl of a run with the free schedule and these settings, to be
    repeated bit for bit in one thread."""
    optimizer: OptimizerConfig = OptimizerConfig()
    network: NetworkConfig = NetworkConfig()
    threads: ThreadsConfig = ThreadsConfig()
    training: Flat[TrainingConfig] = TrainingConfig()

    @property
    def num_updates(self) -> int:
        """Updates that the budget allows."""
        rows = self.threads.batch * self.envs_per_actor * self.unroll_length
        return self.total_steps // rows

    @property
    def envs_per_actor(self) -> int:
        """Environments of each actor."""
        return self.num_envs // self.threads.num_actors

    def make_env(self, key: PRNGKey, num_envs: int | None = None) -> HostEnvironment:
        """Simulators as the agent is to see them; by default those of an actor."""
        env = host.make(
            self.env_name,
            num_envs or self.envs_per_actor,
            seed=int(jax.random.bits(key)) >> 1,
            backend=self.backend,
        )
        return previous_action_and_reward(env) if self.show_previous else env

    def place(self, learner: Agent | Learner) -> Engine:
        """What acts in actor threads, what learns on the learner's devices.

        Raises:
          TrainingError: this machine has fewer devices, or the record is damaged.
        """
        try:
            mesh = data_mesh(self.num_devices)
        except ValueError as error:
            raise TrainingError(f"num_devices: {error}") from error
        parts = (learner, self.make_env, self.unroll_length, self.threads, mesh)
        if self.replay is None:
            return threads(*parts)
        try:
            return repeat_recorded(*parts, Path(self.replay))
        except RecordError as error:
            raise TrainingError(f"replay: {error}") from error

    def train(self, engine: Engine, learner: Agent | Learner) -> Trained:
        """Trains, evaluates, and reports where the time went.

        Raises:
          TrainingError, Interrupted: as `training.train`.
        """
        return host_experiment(
            engine,
            learner,
            self.make_env,
            self,
            self.training,
            env_name=self.env_name,
            seed=self.seed,
            num_updates=self.num_updates,
        )

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_devices=1, num_envs=1, unroll_length=1)
        found += host.problems(self.env_name, self.backend)
        if found or self.threads.problems():
            return found
        if self.num_envs % self.threads.num_actors:
            return [
                "num_envs must be a multiple of threads.num_actors ="
                f" {self.threads.num_actors}, got {self.num_envs}"
            ]
        lanes = self.threads.batch * self.envs_per_actor
        if lanes % self.num_devices:
            found.append(
                f"num_devices must divide the {lanes} environments of a batch, got"
                f" {self.num_devices}"
            )
        if self.num_updates < 1:
            found.append(
                "total_steps must allow an update, environments of a batch *"
                f" unroll_length = {lanes * self.unroll_length}, got {self.total_steps}"
            )
        if self.replay is not None and self.threads.schedule != "free":
            found.append("replay repeats a run with the free schedule, not lockstep")
        return found
