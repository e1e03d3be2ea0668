"""The I-Maze: a colour seen at the start says which of two far goals is the right one.

    # # # # # # #    The maze, S x S cells, is an I. The indicator i, blue or pink, is
    # g . . . r #    part of the wall behind the start ^ and seen only near it. Blue:
    # # # . # # #    the green goal g is the right one. Pink: the red goal r. Each may
    # # # . # # #    be on either side, so that one must both remember and look.
    # # # . # # #
    # . . ^ . . #    Rows and columns are counted from the top left corner.
    # # # i # # #

Sources: Parisotto & Salakhutdinov, arXiv:2104.01655, for the task; Oh et al.,
arXiv:1605.09128, for its ancestor. The exact geometry and the time limits are ours.

As `import gymnax` does, importing this module starts a JAX backend.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxrl_par.envs import drawing
from jaxrl_par.envs.grids import Grid, Stepped, towards
from jaxrl_par.types import PRNGKey

FLOOR, WALL, BLUE, PINK, GREEN, RED = range(6)
"""Kinds of cells, in the order of an observation's channels."""
FORWARD, LEFT, RIGHT = range(3)
"""Actions; a step into a wall does nothing."""
NORTH, EAST, SOUTH, WEST = range(4)
"""Headings."""

# Of the cells of the window: how far ahead of the agent, and to its right.
_AHEAD, _ASIDE = np.mgrid[1:-2:-1, -1:2]
_INDICATORS, _GOALS = ((44, 110, 223), (232, 62, 200)), ((46, 160, 67), (214, 48, 49))
_COLOURS = np.array([drawing.FLOOR, drawing.WALL, *_INDICATORS, *_GOALS], np.uint8)


class IMazeParams(NamedTuple):
    """What may differ between mazes of one size, and may be traced."""

    max_steps_in_episode: int
    """Steps until it is too late."""
    reward_correct: float = 1.0
    reward_wrong: float = 0.0
    reward_timeout: float = 0.0

    def replace(self, **changes: Any) -> "IMazeParams":
        return self._replace(**changes)


class IMazeState(NamedTuple):
    """One agent in its maze."""

    row: Int[Array, "*B"]
    column: Int[Array, "*B"]
    heading: Int[Array, "*B"]
    blue: Bool[Array, "*B"]
    """The indicator is blue, else pink."""
    green_left: Bool[Array, "*B"]
    """The green goal is on the left, and the red one on the right, or vice versa."""
    time: Int[Array, "*B"]


class IMaze(Grid):
    """An I-Maze of `size` x `size` cells, with gymnax's interface.

    One sees the 3 x 3 cells around oneself, turned to one's heading: the first row is
    ahead. They are a one-hot vector of 9 * 6 elements, cell by cell.

    An episode ends at a goal, or after `max_steps_in_episode` steps. Both terminate it:
    the deadline is an outcome of the task, with a reward of its own, as the two goals.
    After a time limit, a learner would add a value to that reward. Then no goal would
    not be worth `reward_timeout`, which is 0 where a random goal is worth 0.5; and the
    rewards (1, -1, -1) would not be the same task as the default (1, 0, 0), with which
    the return is the success rate.

    The shortest way takes 3 (size - 3) / 2 + 1 steps.

    Raises:
      ValueError: `size` is even or below 5.
    """

    def __init__(self, size: int = 9):
        if size < 5 or size % 2 == 0:
            raise ValueError(f"size of an I-Maze must be odd, at least 5, got {size}")
        super().__init__(size, num_actions=3, window_size=3, num_kinds=6)

    @property
    def default_params(self) -> IMazeParams:
        """150 steps for size 9, 350 for 15, a quadratic of the size through both."""
        return IMazeParams(25 * (self.size - 3) * (self.size + 27) // 36)

    def reset_env(
        self, key: PRNGKey, params: IMazeParams
    ) -> tuple[Float[Array, "54"], IMazeState]:
        """At the start, facing the stem; colours and sides are drawn."""
        # One draw for both bits: a stream resets all its environments in every step.
        bits = jax.random.bits(key)
        state = IMazeState(
            row=jnp.int32(self.size - 2),
            column=jnp.int32(self.size // 2),
            heading=jnp.int32(NORTH),
            blue=bits & 1 == 1,
            green_left=bits & 2 == 2,
            time=jnp.int32(0),
        )
        return self.observation(state), state

    def step_env(
        self,
        key: PRNGKey,
        state: IMazeState,
        action: Int[Array, ""] | int,
        params: IMazeParams,
    ) -> Stepped[IMazeState]:
        """Moves or turns. `success` in the last result tells of the right goal."""
        action = jnp.asarray(action)
        turn = towards(action, RIGHT, LEFT)
        north, east = _direction(state.heading)
        row, column = state.row - north, state.column + east
        moves = (action == FORWARD) & self._is_corridor(row, column)
        state = state._replace(
            row=jnp.where(moves, row, state.row),
            column=jnp.where(moves, column, state.column),
            heading=(state.heading + turn) % 4,
            time=state.time + 1,
        )
        at_goal, terminated = self._at_goal(state), self.is_terminated(state, params)
        # At the left goal, is green right? And is it green?
        is_green = (state.column == 1) == state.green_left
        success = at_goal & (is_green == state.blue)
        at_the_end = jnp.where(at_goal, params.reward_wrong, params.reward_timeout)
        at_the_end = jnp.where(success, params.reward_correct, at_the_end)
        reward = jnp.where(terminated, at_the_end, 0.0)
        info = {"discount": self.discount(state, params), "success": success}
        return self.observation(state), state, reward, terminated, info

    def observation(self, state: IMazeState) -> Float[Array, "54"]:
        """The window, one-hot."""
        north, east = _direction(state.heading)
        # To the right of (north, east) is (-east, north).
        rows = state.row - (north * _AHEAD - east * _ASIDE)
        columns = state.column + (east * _AHEAD + north * _ASIDE)
        return self.shown(self._kinds(rows, columns, state))

    def is_terminated(self, state: IMazeState, params: IMazeParams) -> Bool[Array, ""]:
        """At a goal, or too late."""
        return self._at_goal(state) | (state.time >= params.max_steps_in_episode)

    def is_truncated(self, state: IMazeState, params: IMazeParams) -> Bool[Array, ""]:
        """Never: the deadline is part of the task."""
        return jnp.zeros_like(state.time, bool)

    def draw(self, state: IMazeState) -> UInt8[np.ndarray, "H W 3"]:
        """The whole maze; what the agent sees is brighter."""
        rows, columns = jnp.mgrid[: self.size, : self.size]
        colours = _COLOURS[np.asarray(self._kinds(rows, columns, state))]
        row, column = int(state.row), int(state.column)
        picture = drawing.enlarge(drawing.lit(colours, row, column, view_size=3))
        cell = drawing.cell(picture, self.size, row, column)
        cell[drawing.arrow(len(cell), int(state.heading))] = drawing.AGENT
        return picture

    def _is_corridor(self, row, column) -> Bool[Array, "*shape"]:
        end, middle = self.size - 2, self.size // 2
        bars = ((row == 1) | (row == end)) & (column >= 1) & (column <= end)
        stem = (column == middle) & (row >= 1) & (row <= end)
        return bars | stem

    def _at_goal(self, state: IMazeState) -> Bool[Array, ""]:
        side = (state.column == 1) | (state.column == self.size - 2)
        return (state.row == 1) & side

    def _kinds(self, row, column, state: IMazeState) -> Int[Array, "*shape"]:
        """Kinds of cells that may lie outside, where there is but wall."""
        left = jnp.where(state.green_left, GREEN, RED)
        right = GREEN + RED - left
        kind = jnp.where(self._is_corridor(row, column), FLOOR, WALL)
        kind = jnp.where((row == 1) & (column == 1), left, kind)
        kind = jnp.where((row == 1) & (column == self.size - 2), right, kind)
        behind = (row == self.size - 1) & (column == self.size // 2)
        return jnp.where(behind, jnp.where(state.blue, BLUE, PINK), kind)


def _direction(heading) -> tuple[Int[Array, "*B"], Int[Array, "*B"]]:
    """How far a step goes to the north, and to the east."""
    return towards(heading, NORTH, SOUTH), towards(heading, EAST, WEST)
