"""Opening a door: a planar arm pulls it by its handle.

A pure task of ours in place of the robots of Yahya et al., arXiv:1610.00673: doors hang
in poses that differ, and a policy that was shown some is to open others.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.envs.grids import Stepped
from jaxrl_par.envs.tasks.bodies import Body
from jaxrl_par.types import PRNGKey

_SECONDS = 0.05
"""Of a step."""
_LINK = 0.8
"""Length of each of the two links."""
_REST = (-1.2, 1.6)
"""Angles of the joints where an episode begins."""
_DAMPING = 1.0
"""Of the joints, per second."""
_WIDTH = 0.7
"""Of the door, from its hinge to its handle."""
_HINGE = (1.2, 0.5)
_FACING = -1.5707964
"""Direction from the hinge to the handle of a closed door, as the angle of a pose that
is in the middle of all."""
_HINGE_SPREAD, _FACING_SPREAD = 0.12, 0.25
"""Poses are uniform, up to so far away."""
_FRICTION = 1.0
"""Of the hinge, per second."""
_GRIP, _REACH = 25.0, 0.15
"""Force for each unit between hand and handle where these are together, and the
distance by which that has fallen to exp(-1/2): a hand that pulls too fast slips off."""
_STOP = 50.0
"""Torque for each radian by which the door is beyond where it is closed."""
_WANTED, _OPEN = 1.5, 1.0
"""Radians that cost nothing, and those from which on the door is open."""


class DoorParams(NamedTuple):
    """What may be traced."""

    max_steps_in_episode: Int[Array, ""] | int

    def replace(self, **changes: Any) -> "DoorParams":
        return self._replace(**changes)


class DoorState(NamedTuple):
    """Arm and door, and after how many steps."""

    angles: Float[Array, "*B 2"]
    """Of the joints, the second relative to the first."""
    speeds: Float[Array, "*B 2"]
    opening: Float[Array, "*B"]
    """Radians, 0 where the door is closed."""
    swing: Float[Array, "*B"]
    """Radians per second."""
    hinge: Float[Array, "*B 2"]
    facing: Float[Array, "*B"]
    """The door's pose."""
    time: Int[Array, "*B"]


class Door(Body):
    """An arm of two links at (0, 0), and a door that opens towards it, with gymnax's
    interface.

    Actions are the joints' accelerations but for what the handle does to them. One sees
    joints, opening, where hinge and handle are, and what is between hand and handle.
    """

    def __init__(self, length: int = 60):
        super().__init__(length, num_actions=2, num_seen=12)

    @property
    def default_params(self) -> DoorParams:
        return DoorParams(self.length)

    def reset_env(
        self, key: PRNGKey, params: DoorParams
    ) -> tuple[Float[Array, "12"], DoorState]:
        """The arm at rest, the door closed, in some pose."""
        hinge_key, facing_key = jax.random.split(key)
        hinge = _uniform(hinge_key, (2,), _HINGE_SPREAD) + jnp.array(_HINGE)
        facing = _uniform(facing_key, (), _FACING_SPREAD) + _FACING
        zero, still = jnp.float32(0.0), jnp.zeros(2)
        state = DoorState(
            jnp.array(_REST), still, zero, zero, hinge, facing, jnp.int32(0)
        )
        return _shown(state), state

    def step_env(
        self,
        key: PRNGKey,
        state: DoorState,
        action: Float[Array, "2"],
        params: DoorParams,
    ) -> Stepped[DoorState]:
        """Moves, and pays for what was."""
        apart = _hand(state.angles) - handle(state)
        squared = jnp.sum(jnp.square(apart))
        cost = 2.0 * squared + 2.0 * jnp.square(state.opening - _WANTED)
        cost = cost + 0.01 * jnp.sum(jnp.square(action))
        cost = cost + 0.02 * jnp.sum(jnp.square(state.speeds))
        force = _GRIP * jnp.exp(-0.5 * squared / _REACH**2) * apart
        push = action - _DAMPING * state.speeds - _jacobian(state.angles).T @ force
        speeds = state.speeds + _SECONDS * push
        # Opening turns the handle clockwise around the hinge.
        arm = handle(state) - state.hinge
        torque = arm[1] * force[0] - arm[0] * force[1]
        torque = (
            torque - _FRICTION * state.swing - _STOP * jnp.minimum(state.opening, 0)
        )
        swing = state.swing + _SECONDS * torque
        state = state._replace(
            angles=state.angles + _SECONDS * speeds,
            speeds=speeds,
            opening=state.opening + _SECONDS * swing,
            swing=swing,
            time=state.time + 1,
        )
        return _shown(state), state, -cost, self.is_terminated(state, params), {}

    def succeeded(self, state: DoorState) -> Bool[Array, ""]:
        """It is open."""
        return state.opening > _OPEN


def handle(state: DoorState) -> Float[Array, "2"]:
    """Where it is."""
    angle = state.facing - state.opening
    return state.hinge + _WIDTH * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _hand(angles: Float[Array, "2"]) -> Float[Array, "2"]:
    both = jnp.cumsum(angles)
    return _LINK * jnp.stack([jnp.sum(jnp.cos(both)), jnp.sum(jnp.sin(both))])


def _jacobian(angles: Float[Array, "2"]) -> Float[Array, "2 2"]:
    """Of the hand, in the angles."""
    first, second = angles[0], angles[0] + angles[1]
    inner = _LINK * jnp.stack([-jnp.sin(first), jnp.cos(first)])
    outer = _LINK * jnp.stack([-jnp.sin(second), jnp.cos(second)])
    return jnp.stack([inner + outer, outer], axis=1)


def _shown(state: DoorState) -> Float[Array, "12"]:
    at = handle(state)
    door = jnp.stack([state.opening, state.swing])
    between = _hand(state.angles) - at
    seen = state.angles, state.speeds, door, state.hinge, at, between
    return jnp.concatenate(seen)


def _uniform(key: PRNGKey, shape: tuple[int, ...], spread: float) -> Array:
    return jax.random.uniform(key, shape, minval=-spread, maxval=spread)
