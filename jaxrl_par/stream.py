"""The stream of environments: the records that go from whoever steps to whoever learns.

Nothing here imports JAX before one of its functions is needed, so that processes can
step and act without it: others take these names from `types`, whose axis letters and
kinds of record are these.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxrl_par.lazy import late

if TYPE_CHECKING:
    from jaxtyping import Array
else:
    Array = Any  # that of JAX, whose name alone would import it

jax: Any = late("jax")
jnp: Any = late("jax.numpy")

Params = Any
Carry = Any
Obs = Any
Action = Any
Extras = dict[str, Any]


class TimeStep(NamedTuple):
    """What B environments show, leaves [B, ...], or [T, B, ...] over time."""

    obs: Obs
    first: Bool[Array, "*T B"]
    """`obs` starts an episode: memory is cleared before it is read."""
    last: Bool[Array, "*T B"]
    """`obs` ended an episode, by termination or time limit. The next one is `first`."""


class Trajectory(NamedTuple):
    """T actions of B environments, between T+1 observations.

    Every observation of an episode appears once, the final one included. Rows whose
    step is `last` are no transitions: their action is ignored, their loss weighs 0.
    """

    steps: TimeStep
    """[T+1, B, ...]; the final row is there to bootstrap from."""
    action: Action
    reward: Float[Array, "T B"]
    """What `action` brought; 0 where `last`."""
    discount: Float[Array, "T B"]
    """0 where `action` terminated the episode or the step is `last`, else 1; -1
    where the next observation is another player's, who wants the opposite."""
    extras: Extras
    """What `Agent.act` leaves for the learner, such as log-probabilities."""
    carry: Carry
    """[B, ...], the agent's memory before the first row."""

    @property
    def num_lanes(self) -> int:
        """B: each lane is the stream of one environment."""
        return self.reward.shape[1]

    @property
    def rows(self) -> TimeStep:
        """[T, B, ...], the steps that were acted in: all but the final one."""
        return jax.tree.map(lambda x: x[:-1], self.steps)

    @property
    def env_steps(self) -> Int[Array, ""]:
        """Rows that are no `last`."""
        return jnp.sum(~self.rows.last, dtype=jnp.int32)

    def lanes(self, index: Int[Array, " N"]) -> "Trajectory":
        """Some of the lanes, [T, N, ...]."""
        return self.along_lanes(lambda axis, x: x[:, index] if axis else x[index])

    def lanes_first(self) -> "Trajectory":
        """Leaves [B, T, ...]: a lane is one item, as buffers keep them."""
        return self.along_lanes(lambda axis, x: jnp.swapaxes(x, 0, axis))

    def time_first(self) -> "Trajectory":
        """From `lanes_first` back to leaves [T, B, ...]."""
        return self.lanes_first()

    @staticmethod
    def join(
        trajectories: Sequence["Trajectory"],
        concatenate: Callable[..., Any] | None = None,
    ) -> "Trajectory":
        """The lanes of all, one after the other.

        Args:
          concatenate: (arrays, axis) -> array; by default that of JAX.
        """
        join = concatenate or jnp.concatenate
        first, *others = trajectories
        if not others:
            return first
        return first.along_lanes(lambda axis, *xs: join(xs, axis), *others)

    def along_lanes(
        self, function: Callable[..., Any], *others: "Trajectory"
    ) -> "Trajectory":
        """`function(axis, leaf, *leaves of others)` of all leaves; their lanes are
        along `axis`, which is 0 for those of the carry and else 1."""
        everyone = (self, *others)
        carry = jax.tree.map(lambda *xs: function(0, *xs), *(x.carry for x in everyone))
        rows = (x._replace(carry=()) for x in everyone)
        rows = jax.tree.map(lambda *xs: function(1, *xs), *rows)
        return rows._replace(carry=carry)


class Mean(NamedTuple):
    """A mean in two parts, so that means over devices and updates stay exact."""

    total: Float[Array, ""]
    count: Float[Array, ""]


Metrics = dict[str, Float[Array | np.ndarray, "..."] | Mean]
"""By name: scalars, or [num_updates] where those of several updates are stacked."""
