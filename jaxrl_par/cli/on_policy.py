"""What experiments with on-policy algorithms share: environments, budget, devices."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxrl_par import envs
from jaxrl_par.axis import Axis
from jaxrl_par.cli.config import Flat
from jaxrl_par.cli.entry import environment_problems, experiment
from jaxrl_par.envs import Environment
from jaxrl_par.envs.wrappers import previous_action_and_reward
from jaxrl_par.errors import at_least
from jaxrl_par.loops import Engine, Learner, Program
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.optimizers import OptimizerConfig
from jaxrl_par.topologies.sharded import data_mesh, sharded, share
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.runner import Trained
from jaxrl_par.training.settings import TrainingConfig
from jaxrl_par.types import Agent


@dataclass(frozen=True)
class OnPolicyArgs:
    """Environments, budget, network, optimizer and devices of an experiment."""

    env_name: str = "CartPole-v1"
    """Name in gymnax, or one of ours, such as IMaze-9x9 or MetaFetch-7x7."""
    seed: int = 0
    num_devices: int = 1
    """Devices that share the environments and average their gradients."""
    num_envs: int = 32
    """Environments in total, a multiple of num_devices."""
    unroll_length: int = 32
    """Steps of each environment for an update."""
    total_steps: int = 1_000_000
    """Rows of the stream, rounded down to whole updates. Rows that only show the end
    of an episode are among them; steps in the metrics leave them out."""
    show_previous: bool = False
    """Show the previous action and reward with each observation."""
    normalize: bool = False
    """Normalise observations by their running mean and standard deviation."""
    optimizer: OptimizerConfig = OptimizerConfig()
    network: NetworkConfig = NetworkConfig()
    training: Flat[TrainingConfig] = TrainingConfig()

    @property
    def num_updates(self) -> int:
        """Steps of the program that the budget allows."""
        return self.total_steps // (self.num_envs * self.unroll_length)

    def make_env(self, num_envs: int) -> Environment:
        """So many environments, as the agent is to see them."""
        env = envs.make(self.env_name, num_envs)
        return previous_action_and_reward(env) if self.show_previous else env

    def place(self, make_program: Callable[[Environment, Axis], Program]) -> Program:
        """The program on one device, or sharded over several.

        Args:
          make_program: from a device's environments and the axis to average over.

        Raises:
          TrainingError: this machine has fewer devices.
        """
        env = self.make_env(share(self.num_envs, self.num_devices))
        if self.num_devices == 1:
            return make_program(env, Axis())
        try:
            mesh = data_mesh(self.num_devices)
        except ValueError as error:
            raise TrainingError(f"num_devices: {error}") from error
        return sharded(make_program(env, Axis("data")), mesh)

    def train(self, program: Program | Engine, learner: Agent | Learner) -> Trained:
        """Trains, evaluates, and draws an episode.

        Raises:
          TrainingError, Interrupted: as `training.train`.
        """
        return experiment(
            program,
            learner,
            self.make_env,
            self,
            self.training,
            seed=self.seed,
            num_updates=self.num_updates,
        )

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, num_devices=1, num_envs=1, unroll_length=1)
        found += environment_problems(self.env_name)
        if found:
            return found
        if self.num_envs % self.num_devices:
            found.append(
                f"num_envs must be a multiple of num_devices = {self.num_devices}, got"
                f" {self.num_envs}"
            )
        if self.num_updates < 1:
            found.append(
                "total_steps must allow an update, num_envs * unroll_length ="
                f" {self.num_envs * self.unroll_length}, got {self.total_steps}"
            )
        return found
