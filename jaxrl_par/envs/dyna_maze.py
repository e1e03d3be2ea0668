"""The maze in which Dyna was shown: 6 x 9 cells, of which one sees the number.

Source: Sutton and Barto, Reinforcement Learning, 2nd edition, example 8.1. As `import
gymnax` does, importing this module starts a JAX backend.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxrl_par.envs import drawing
from jaxrl_par.types import PRNGKey

LAYOUT = (
    ".......#G",
    "..#....#.",
    "S.#....#.",
    "..#......",
    ".....#...",
    ".........",
)
"""S is the start, G the goal, # a wall. The shortest way has 14 steps."""
_CELLS = np.array([list(row) for row in LAYOUT])
HEIGHT, WIDTH = _CELLS.shape


class DynaMazeParams(NamedTuple):
    """What may differ between mazes, and may be traced."""

    max_steps_in_episode: int = 2_000
    """A time limit, which a random walk exceeds about every third time."""

    def replace(self, **changes: Any) -> "DynaMazeParams":
        return self._replace(**changes)


class DynaMazeState(NamedTuple):
    """Where one is, and after how many steps."""

    cell: Int[Array, "*B"]
    time: Int[Array, "*B"]


class DynaMaze(environment.Environment):
    """The maze, with gymnax's interface: reward 1 at the goal, else 0.

    An observation is the number of the cell, row by row. Actions are up, right, down
    and left; a step into a wall or out of the maze stays.
    """

    def __init__(self, height: int = HEIGHT, width: int = WIDTH):
        assert (height, width) == _CELLS.shape  # as the catalogue says
        super().__init__()

    @property
    def name(self) -> str:
        return f"DynaMaze-{HEIGHT}x{WIDTH}"

    @property
    def num_actions(self) -> int:
        return 4

    @property
    def default_params(self) -> DynaMazeParams:
        return DynaMazeParams()

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(4)

    def observation_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(_CELLS.size)

    def reset_env(
        self, key: PRNGKey, params: DynaMazeParams
    ) -> tuple[Int[Array, ""], DynaMazeState]:
        """At the start."""
        start = jnp.int32(np.argmax(_CELLS.reshape(-1) == "S"))
        return start, DynaMazeState(start, jnp.int32(0))

    def step_env(
        self,
        key: PRNGKey,
        state: DynaMazeState,
        action: Int[Array, ""] | int,
        params: DynaMazeParams,
    ) -> tuple[
        Int[Array, ""],
        DynaMazeState,
        Float[Array, ""],
        Bool[Array, ""],
        dict[str, Array],
    ]:
        """Moves."""
        cell = jnp.asarray(_NEXT)[state.cell, action]
        state = DynaMazeState(cell, state.time + 1)
        there = self.is_terminated(state, params)
        return cell, state, there.astype(jnp.float32), there, {}

    def is_terminated(
        self, state: DynaMazeState, params: DynaMazeParams
    ) -> Bool[Array, ""]:
        """At the goal."""
        return state.cell == np.argmax(_CELLS.reshape(-1) == "G")

    def is_truncated(
        self, state: DynaMazeState, params: DynaMazeParams
    ) -> Bool[Array, ""]:
        """Too late."""
        return state.time >= params.max_steps_in_episode

    def draw(self, state: DynaMazeState) -> UInt8[np.ndarray, "H W 3"]:
        """The maze from above."""
        colours = np.where((_CELLS == "#")[..., None], drawing.WALL, drawing.FLOOR)
        colours[_CELLS == "G"] = drawing.MARK
        picture = drawing.enlarge(colours.astype(np.uint8))
        square = drawing.cell(picture, WIDTH, *divmod(int(state.cell), WIDTH))
        square[drawing.disc(len(square))] = drawing.AGENT
        return picture


def _successors() -> Int[np.ndarray, "S 4"]:
    """Where each action leads from each cell."""
    found = np.arange(_CELLS.size)[:, None].repeat(4, 1)
    for cell in range(_CELLS.size):
        for action, move in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
            row, column = np.add(divmod(cell, WIDTH), move)
            inside = 0 <= row < HEIGHT and 0 <= column < WIDTH
            if inside and _CELLS[row, column] != "#":
                found[cell, action] = row * WIDTH + column
    return found.astype(np.int32)


_NEXT = _successors()
