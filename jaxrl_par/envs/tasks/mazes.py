"""Mazes in which one has to find out where the goal is: gymnax's MetaMaze.

Source: Miconi et al., arXiv:2002.10585, section 3.2, for the task.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments import spaces
from gymnax.environments.misc import meta_maze
from jaxtyping import Array, Float, Int

from jaxrl_par.envs.grids import Stepped
from jaxrl_par.envs.tasks.base import Tasks
from jaxrl_par.errors import RefusedError
from jaxrl_par.types import PRNGKey


class MazeParams(NamedTuple):
    """A task, which may be traced."""

    goal: Int[Array, "*B 2"]
    """Row and column, counted with the walls around the maze."""
    reward: Float[Array, "*B"] | float = 10.0
    """For coming to the goal."""
    punishment: Float[Array, "*B"] | float = 0.0
    """For a step into a wall."""
    max_steps_in_episode: Int[Array, "*B"] | int = 50

    def replace(self, **changes: Any) -> "MazeParams":
        return self._replace(**changes)


class Maze(meta_maze.MetaMaze):
    """gymnax's maze of `size` x `size` cells. One sees which of the 3 x 3 cells around
    oneself are walls, and starts in the middle.

    The goal, which cannot be seen, is a parameter, and ends the episode: in gymnax it
    is drawn with each episode, in which one may come to it several times. Last action
    and reward, which gymnax shows, are for trials to show.

    Raises:
      RefusedError: the size is not 5, 9, 13, ...: the middle would be a wall.
    """

    def __init__(self, size: int = 9):
        if size < 5 or size % 4 != 1:
            raise RefusedError(f"size of a maze must be 5, 9, 13, ..., got {size}")
        super().__init__(maze_size=size, rf_size=3)

    @property
    def name(self) -> str:
        return f"Maze-{self.maze_size}"

    @property
    def default_params(self) -> MazeParams:
        """The goal is in a corner."""
        return MazeParams(self.coords[0])

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (self.rf_size**2,), jnp.float32)

    def reset_env(
        self, key: PRNGKey, params: MazeParams
    ) -> tuple[Float[Array, "9"], meta_maze.EnvState]:
        """At the start."""
        _, state = super().reset_env(key, params)  # pyright: ignore
        state = state.replace(goal=params.goal)  # pyright: ignore
        return self.get_obs(state, params), state

    def step_env(
        self,
        key: PRNGKey,
        state: meta_maze.EnvState,
        action: Int[Array, ""] | int,
        params: MazeParams,
    ) -> Stepped[meta_maze.EnvState]:
        """Moves."""
        given = (key, state, action, params)
        obs, after, reward, _, info = super().step_env(*given)  # pyright: ignore
        # gymnax has put whoever comes to the goal somewhere else already.
        there = state.pos + self.directions[action]
        return obs, after, reward, jnp.all(there == params.goal), info

    def get_obs(
        self, state: meta_maze.EnvState, params: MazeParams, key: Any = None
    ) -> Float[Array, "9"]:
        """1 for each wall."""
        corner = tuple(state.pos - self.rf_off)
        window = (self.rf_size, self.rf_size)
        seen = jax.lax.dynamic_slice(self.occupied_map, corner, window)
        return seen.reshape(-1).astype(jnp.float32)


def mazes(size: int = 9) -> Tasks:
    """Mazes with the goal in any cell that is no wall, equally likely.

    Raises:
      RefusedError: as `Maze`.
    """
    maze = Maze(size)
    return Tasks(maze, partial(_drawn, maze=maze))


def _drawn(key: PRNGKey, maze: Maze) -> MazeParams:
    index = jax.random.randint(key, (), 0, len(maze.coords))
    return maze.default_params.replace(goal=maze.coords[index])
