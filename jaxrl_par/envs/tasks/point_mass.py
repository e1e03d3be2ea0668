"""A point mass finds its way between obstacles.

A small task of ours in the manner of the planar ones of Levine et al.,
arXiv:1504.00702: the cost has a hill at each obstacle, so that it curves both ways.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.envs.grids import Stepped
from jaxrl_par.envs.tasks.bodies import Body
from jaxrl_par.types import PRNGKey

_SECONDS = 0.1
"""Of a step."""
_DRAG = 0.5
"""Per second."""
_GOAL = (1.0, 0.0)
_OBSTACLES = ((-0.1, 0.35), (0.2, -0.3), (-0.5, -0.4))
_WIDTH = 0.2
"""Standard deviation of a hill."""
_HEIGHT = 3.0
_NEAR = 0.15


class PointMassParams(NamedTuple):
    """What may be traced."""

    max_steps_in_episode: Int[Array, ""] | int

    def replace(self, **changes: Any) -> "PointMassParams":
        return self._replace(**changes)


class PointMassState(NamedTuple):
    """Where it is and how it moves, and after how many steps."""

    position: Float[Array, "*B 2"]
    velocity: Float[Array, "*B 2"]
    time: Int[Array, "*B"]


class PointMass(Body):
    """A point of mass 1 in the plane, pushed to a goal at (1, 0), with gymnax's
    interface.

    It begins at rest on the left, sees position and velocity, and pays the squared
    distance from the goal, a little for speed and force, and for being on a hill.
    """

    def __init__(self, length: int = 50):
        super().__init__(length, num_actions=2, num_seen=4)

    @property
    def default_params(self) -> PointMassParams:
        return PointMassParams(self.length)

    def reset_env(
        self, key: PRNGKey, params: PointMassParams
    ) -> tuple[Float[Array, "4"], PointMassState]:
        """On the left, at rest."""
        low, high = jnp.array([-1.2, -0.5]), jnp.array([-0.9, 0.5])
        position = jax.random.uniform(key, (2,), minval=low, maxval=high)
        state = PointMassState(position, jnp.zeros(2), jnp.int32(0))
        return _shown(state), state

    def step_env(
        self,
        key: PRNGKey,
        state: PointMassState,
        action: Float[Array, "2"],
        params: PointMassParams,
    ) -> Stepped[PointMassState]:
        """Moves, and pays for what was."""
        position, velocity, time = state
        apart = position - jnp.array(_GOAL)
        cost = jnp.sum(jnp.square(apart)) + 0.1 * jnp.sum(jnp.square(velocity))
        cost = cost + 0.01 * jnp.sum(jnp.square(action)) + jnp.sum(hills(position))
        velocity = velocity + _SECONDS * (action - _DRAG * velocity)
        state = PointMassState(position + _SECONDS * velocity, velocity, time + 1)
        return _shown(state), state, -cost, self.is_terminated(state, params), {}

    def succeeded(self, state: PointMassState) -> Bool[Array, ""]:
        """Near the goal."""
        apart = state.position - jnp.array(_GOAL)
        return jnp.sum(jnp.square(apart)) < _NEAR**2


def hills(position: Float[Array, "2"]) -> Float[Array, " O"]:
    """What each obstacle costs there."""
    apart = position[None] - jnp.array(_OBSTACLES)
    squared = jnp.sum(jnp.square(apart), axis=1)
    return _HEIGHT * jnp.exp(-0.5 * squared / _WIDTH**2)


def _shown(state: PointMassState) -> Float[Array, "4"]:
    return jnp.concatenate([state.position, state.velocity])
