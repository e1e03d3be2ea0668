"""CPU-bound environments: the rows of `Environment`, from numpy and with state."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Key, UInt32

from jaxrl_par.specs import Specs
from jaxrl_par.stream import Metrics, TimeStep

if TYPE_CHECKING:
    from jaxtyping import Array
else:
    Array = Any  # that of JAX, whose name alone would import it

HostRow = tuple[TimeStep, np.ndarray, np.ndarray]
"""The next step with numpy leaves [B, ...], reward [B] float32, discount [B] float32"""


class HostEnvironment(ABC):
    """`num_envs` simulators in one thread, as a stream with the rows of
    `envs.Environment`. Arrays that are returned may be overwritten by the next call.

    One thread uses an instance, except for `close`, which may come from another thread
    when a simulator hangs.
    """

    num_envs: int
    observation_spec: Specs
    """A spec for each leaf of an observation, without the batch axis."""
    action_spec: Specs
    """As of observations: one spec, or a spec for each part of an action."""
    name: str
    max_episode_steps: int | None
    """Time limit in environment steps, None where it is not known."""

    def _describe(self, env: Any) -> None:
        """Has the specs, name and so on of another environment."""
        self.num_envs, self.name = env.num_envs, env.name
        self.observation_spec, self.action_spec = env.specs
        self.max_episode_steps = env.max_episode_steps

    @property
    def specs(self) -> tuple[Specs, Specs]:
        """(of observations, of actions), as a network takes them."""
        return self.observation_spec, self.action_spec

    @abstractmethod
    def reset(self) -> TimeStep:
        """Starts every environment anew. Called once, before the first step."""

    @abstractmethod
    def step(self, action: Any) -> HostRow:
        """Acts in every environment; `action` has leaves [B, ...].

        Policies may choose outside the bounds of `action_spec`: what is done is the
        nearest action within.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees processes, files and memory. A second call does nothing."""

    def take_info(self, lanes: np.ndarray | None = None) -> Metrics:
        """Means of what was told in `info` of episodes that ended since the last call,
        as `envs.host.info` reads it: the same names each time.

        Args:
          lanes: [B] booleans, which environments count; None for all.
        """
        del lanes
        return {}

    def render(self) -> np.ndarray | None:
        """A picture [H, W, 3] uint8 of the first environment as it is now; None if it
        draws nothing."""
        return None

    def plan(self, keys: Key[Array, " T"] | UInt32[np.ndarray, "T 2"]) -> None:
        """Hands over the keys [T] of the next T steps, or their words, uint32 [T, 2].

        Simulators have randomness of their own, seeded when they are made, and ignore
        them; a pure environment draws what it would draw in a compiled program.
        """
        del keys

    def snapshot(self) -> Any:
        """All that is needed to come back to this point, as a pytree of arrays whose
        shapes never change; None if the simulator cannot be brought back."""
        return None

    def restore(self, snapshot: Any) -> TimeStep:
        """Comes back, in a new instance, to where `snapshot` was taken. Returns what is
        shown there: compared with what was kept, it finds a simulator that is not
        deterministic."""
        raise NotImplementedError(f"{self.name} cannot be restored")
