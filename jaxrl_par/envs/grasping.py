"""Grasping in small: a gripper, an object somewhere below it, and a decision to stop.

The workspace is a unit cube. An action (dx, dy, dz, close, terminate) in [-1, 1]^5
moves the gripper by a quarter of its first three numbers; the hand is closed where the
fourth is above 0, and the episode ends where the last one is. An object is grasped when
the hand closes around it: it was open, is near in the plane, and low. What is held goes
with the gripper, until the hand opens and it falls.

Only the end pays: 1 if the object is held there, and high; each step costs a little. So
an episode that pays more than 0 in its last step is a success, and no other. One sees a
small picture from above, and whether the hand is closed and how high. It is the task of
Kalashnikov et al., arXiv:1806.10293, in small; sizes and the exact rules are ours.

As `import gymnax` does, importing this module starts a JAX backend.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxrl_par.envs import drawing
from jaxrl_par.errors import refuse
from jaxrl_par.types import PRNGKey

STEP = 0.25
"""How far an action of 1 goes along an axis."""
NEAR = 0.15
"""Distance in the plane at which the hand closes around the object."""
LOW, HIGH = 0.2, 0.5
"""Heights up to which it can be grasped, and from which on it is lifted."""
_BORDER = 0.1
"""Objects lie at least so far from the sides."""
_WIDTH = 1.0
"""Standard deviation, in pixels, of the blobs that things are shown as."""
_OBJECT, _HAND = (214, 96, 52), (46, 92, 168)


class GraspingParams(NamedTuple):
    """What may be traced."""

    max_steps_in_episode: int = 12
    step_cost: float = 0.05
    """What each step costs: without it, to wander about is as good as to go on."""

    def replace(self, **changes: Any) -> "GraspingParams":
        return self._replace(**changes)


class GraspingObs(NamedTuple):
    """What is seen."""

    image: UInt8[Array, "*B S S 2"]
    """From above: the object, brighter where it is higher, and the gripper. Rows are x,
    columns y."""
    hand: Float[Array, "*B 2"]
    """Whether it is closed, 0 or 1, and how high it is."""


class GraspingState(NamedTuple):
    """A gripper and an object, in the unit cube."""

    position: Float[Array, "*B 3"]
    """Of the gripper: x, y and height."""
    object: Float[Array, "*B 3"]
    closed: Bool[Array, "*B"]
    held: Bool[Array, "*B"]
    ended: Bool[Array, "*B"]
    """The last action was to end the episode."""
    time: Int[Array, "*B"]


class Grasping(environment.Environment):
    """Pictures of `size` x `size` pixels, with gymnax's interface.

    The gripper begins open, above the middle; the object is drawn uniformly. Episodes
    are cut after `max_steps_in_episode` steps, which is no end: it pays nothing.
    """

    def __init__(self, size: int = 16):
        refuse(size=size)
        self.size = size

    @property
    def name(self) -> str:
        return f"Grasping-{self.size}x{self.size}"

    @property
    def default_params(self) -> GraspingParams:
        return GraspingParams()

    def action_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (5,), jnp.float32)

    def observation_space(self, params: Any = None) -> spaces.Dict:
        image = spaces.Box(0, 255, (self.size, self.size, 2), jnp.uint8)
        hand = spaces.Box(0.0, 1.0, (2,), jnp.float32)
        return spaces.Dict({"image": image, "hand": hand})

    def reset_env(
        self, key: PRNGKey, params: GraspingParams
    ) -> tuple[GraspingObs, GraspingState]:
        """The object is drawn."""
        place = jax.random.uniform(key, (2,), minval=_BORDER, maxval=1.0 - _BORDER)
        no = jnp.bool_(False)
        state = GraspingState(
            position=jnp.array([0.5, 0.5, 1.0]),
            object=jnp.concatenate([place, jnp.zeros(1)]),
            closed=no,
            held=no,
            ended=no,
            time=jnp.int32(0),
        )
        return self.observation(state), state

    def step_env(
        self,
        key: PRNGKey,
        state: GraspingState,
        action: Float[Array, "5"],
        params: GraspingParams,
    ) -> tuple[GraspingObs, GraspingState, Float[Array, ""], Bool[Array, ""], dict]:
        """Moves, then opens or closes the hand, then ends."""
        position = jnp.clip(state.position + STEP * action[:3], 0.0, 1.0)
        closed, ends = action[3] > 0.0, action[4] > 0.0
        away = jnp.sqrt(jnp.sum(jnp.square(position - state.object)[:2]))
        around = ~state.closed & (away <= NEAR) & (position[2] <= LOW)
        held = closed & (state.held | around)
        # What is let go falls straight down.
        fallen = state.object * jnp.array([1.0, 1.0, 0.0])
        moved = jnp.where(held, position, fallen)
        state = GraspingState(position, moved, closed, held, ends, state.time + 1)
        success = ends & held & (position[2] >= HIGH)
        reward = success.astype(jnp.float32) - params.step_cost
        terminated = self.is_terminated(state, params)
        return self.observation(state), state, reward, terminated, {}

    def is_terminated(
        self, state: GraspingState, params: GraspingParams
    ) -> Bool[Array, ""]:
        """Where the agent said so."""
        return state.ended

    def observation(self, state: GraspingState) -> GraspingObs:
        """The picture, and the hand."""
        brightness = 0.5 + 0.5 * state.object[2]
        blobs = [brightness * self._blob(state.object), self._blob(state.position)]
        image = jnp.round(255.0 * jnp.stack(blobs, axis=-1)).astype(jnp.uint8)
        hand = jnp.stack([state.closed.astype(jnp.float32), state.position[2]])
        return GraspingObs(image, hand)

    def _blob(self, place: Float[Array, "3"]) -> Float[Array, "S S"]:
        pixels = jnp.arange(self.size, dtype=jnp.float32)
        along = pixels[None] - place[:2, None] * (self.size - 1)
        row, column = jnp.exp(-0.5 * jnp.square(along / _WIDTH))
        return row[:, None] * column[None]

    def draw(self, state: GraspingState) -> UInt8[np.ndarray, "H W 3"]:
        """From above on the left, from the side on the right. The hand is hollow while
        it is open."""
        cells = np.full((1, 2, 3), drawing.FLOOR, np.uint8)
        picture = drawing.enlarge(cells)
        side = picture.shape[0]
        for place, colour, radius, filled in (
            (state.object, _OBJECT, 0.06, True),
            (state.position, _HAND, NEAR, bool(state.closed)),
        ):
            x, y, height = np.asarray(place)
            for number, (down, right) in enumerate(((x, y), (1.0 - height, y))):
                part = picture[:, number * side : (number + 1) * side]
                rows, columns = np.mgrid[:side, :side] / (side - 1)
                distance = np.hypot(rows - down, columns - right)
                inside = distance <= radius
                inside &= filled | (distance >= 0.7 * radius)
                part[inside] = colour
        return picture
