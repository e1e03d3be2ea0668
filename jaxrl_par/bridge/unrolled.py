"""Unrolls and who acts them: records, which need no JAX."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxrl_par.bridge.pooled import PooledActor
from jaxrl_par.envs.host.base import HostEnvironment
from jaxrl_par.stream import Metrics, Params, TimeStep, Trajectory

MakeEnv = Callable[[Any], HostEnvironment]
"""New environments of one actor, with all their randomness from the key."""


class ActorState(NamedTuple):
    """All of an actor between two unrolls, as arrays."""

    unroll: Any
    """Number of its next unroll, int32."""
    generation: Any
    """How often its environments were made anew."""
    step: TimeStep
    carry: Any
    returns: np.ndarray
    """Returns of the episodes in progress, [B]."""
    lengths: np.ndarray
    env: Any
    """`HostEnvironment.snapshot`, () if there is none."""


class Episodes(NamedTuple):
    """Sums over the episodes that ended in an unroll."""

    return_: float
    length: float
    count: int


class Unrolled(NamedTuple):
    """T rows of one actor, leaves in numpy, and where they come from."""

    actor: int
    unroll: int
    generation: int
    version: int
    """The version of the parameters that acted, the oldest of several."""
    trajectory: Trajectory
    episodes: Episodes
    info: Metrics
    """What simulators told of the episodes that ended: `HostEnvironment.take_info`."""
    after: ActorState

    @property
    def versions(self) -> dict[int, int]:
        """Each version that acted, oldest first, and for how many rows of every
        environment."""
        rows: Any = self.trajectory.extras["version"]
        found, counts = np.unique(rows[:, 0], return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))


class AnyActor(PooledActor):
    """An actor, whose environments may be elsewhere."""

    kind = "actor"
    env_steps = 0
    """Environment steps until now, over all environments and generations."""

    @abstractmethod
    def unroll(self, params: Params, version: int) -> Unrolled:
        """Acts T times in every environment."""
