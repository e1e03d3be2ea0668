"""A member of a pool: what has environments, and can be made anew.

Nothing here imports JAX before a member acts with it.
"""

from abc import ABC, abstractmethod
from typing import Any

from jaxrl_par.bridge.reports import Times
from jaxrl_par.bridge.supervision import Activity
from jaxrl_par.lazy import late

jax: Any = late("jax")


class PooledActor(ABC):
    """An actor, or what else has environments: see `actor.Actor`."""

    env: Any = None

    def __init__(self, index: int, root: Any, device: Any, activity: Activity):
        """
        Args:
          root: the key of all unrolls.
          device: a `jax.Device`, where it acts; None without JAX.
          activity: told before and after each call of the environment.
        """
        self.index = index
        self.times = Times()
        self.rows = 0
        """Rows acted until now, over all environments and generations."""
        self.generation = 0
        """How often the environments were made anew."""
        self.next_unroll = 0
        """The unroll in progress, or the next one."""
        self._root = root if device is None else jax.device_put(root, device)
        self._device = device
        self._activity = activity

    @property
    def rows_in_progress(self) -> int:
        """Rows of the unroll in progress, over all environments."""
        return 0

    @abstractmethod
    def start(self, key: Any, generation: int = 0, unroll: int = 0) -> None:
        """Makes the environments, and shows the first observations."""

    @abstractmethod
    def resume(self, state: Any, key: Any, fresh_key: Any) -> bool:
        """Goes on from a saved state; False if the environments had to start anew.

        Args:
          key: made the environments of the state's generation.
          fresh_key: makes new ones where a simulator cannot be brought back.

        Raises:
          RuntimeError: the simulator came back to something else.
        """

    @abstractmethod
    def state(self) -> Any:
        """All of the actor; valid between two unrolls."""

    @abstractmethod
    def where(self, row: int | None = None) -> str:
        """For errors: actor, environment and step, by default that in progress."""

    def cancel(self) -> None:
        """Makes it end with `Stopped` after its next call, from another thread."""
        self._activity.give_up()

    @abstractmethod
    def close(self) -> None:
        """Frees the environments.

        Raises:
          Stopped: it was cancelled.
        """
