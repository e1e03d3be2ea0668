"""What experiments share that learn from each trajectory in several passes."""

from dataclasses import dataclass
from typing import ClassVar

from jaxrl_par.cli.args import Args
from jaxrl_par.errors import at_least, at_most
from jaxrl_par.loops import Learner, epochs, without_halves
from jaxrl_par.types import Agent


@dataclass(frozen=True)
class EpochArgs(Args):
    """An experiment whose learner makes several passes of minibatches."""

    learns_from_rows: ClassVar[bool] = True
    """Whether minibatches are of rows where there is no memory, or always sequences."""

    num_epochs: int = 4
    """Passes over what a step of training learns from."""
    num_minibatches: int = 4
    """Updates in each pass; must divide the rows of a device. With memory, and for
    agents that learn from sequences, it must divide its environments."""

    @property
    def updates_per_step(self) -> int:
        """Steps of the optimizer in each step of training."""
        return self.num_epochs * self.num_minibatches

    def largest_product(self) -> int:
        return super().largest_product() // self.num_minibatches

    def make_learner(self, agent: Agent) -> Learner:
        """How the agent learns: in passes. A single update has halves, too."""
        if self.updates_per_step == 1:
            return super().make_learner(agent)
        return epochs(self.normalized(agent), self.num_epochs, self.num_minibatches)

    def problems(self) -> list[str]:
        counts = at_least(self, num_epochs=1, num_minibatches=1)
        counts += at_most(self, num_epochs=10**6)
        if found := super().problems() + counts:
            return found
        if self.system in ("delayed", "workers"):
            if self.updates_per_step == 1:
                return []
            return [
                "num_epochs * num_minibatches must be 1 here, got"
                f" {self.updates_per_step}: {without_halves(self.topology)}."
                " Several are for compiled or threads"
            ]
        rows = self.learns_from_rows and self.network.memory == "none"
        alone = self.topology == "gossip"
        lanes = self.envs_each if alone else self.lanes // self.num_devices
        items = lanes * (self.unroll_length if rows else 1)
        if items % self.num_minibatches == 0:
            return []
        whose = "learner" if alone else "device"
        return [
            f"num_minibatches must divide the {items} rows or sequences of a {whose},"
            f" got {self.num_minibatches}"
        ]
