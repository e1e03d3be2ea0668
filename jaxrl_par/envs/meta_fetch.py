"""Meta-Fetch: objects in a grid, to be fetched in an order that one has to find out.

K objects lie on a grid of G x G cells, of which one sees a window. Moving onto an
object fetches it: it disappears. A hidden order of the objects, drawn for each episode,
says what that does:

* It is the next of the order: it pays 1, once in each pass.
* It is another one: it pays nothing. All objects are back where they were, and the
  order starts over. What was fetched before is to be fetched again, without pay.
* It was the last of the order: the pass is complete, all objects are back, all pay
  again. So the return tells how well the order is remembered.

Sources: Parisotto & Salakhutdinov, arXiv:2104.01655, for the task; Humplik et al.,
arXiv:1905.06424, for Numpad, of which it is the version in a grid. Sizes and the exact
rules are ours.

As `import gymnax` does, importing this module starts a JAX backend.
"""

import colorsys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxrl_par.envs import drawing
from jaxrl_par.envs.grids import Grid, Stepped, towards
from jaxrl_par.types import PRNGKey

UP, DOWN, LEFT, RIGHT = range(4)
"""Actions; a step into a wall does nothing."""


class MetaFetchParams(NamedTuple):
    """What may be traced."""

    max_steps_in_episode: int = 300

    def replace(self, **changes: Any) -> "MetaFetchParams":
        return self._replace(**changes)


class MetaFetchState(NamedTuple):
    """One agent among its objects. Cells are counted from the top left one, (0, 0)."""

    row: Int[Array, "*B"]
    column: Int[Array, "*B"]
    object_rows: Int[Array, "*B K"]
    object_columns: Int[Array, "*B K"]
    ranks: Int[Array, "*B K"]
    """The place of each object in the order, from 0."""
    progress: Int[Array, "*B"]
    """How many places of the order were fetched; these objects have disappeared."""
    paid: Int[Array, "*B"]
    """How many were, at most, in this pass; these places pay no more until the next."""
    time: Int[Array, "*B"]


class MetaFetch(Grid):
    """`num_objects` objects on `size` x `size` cells, with gymnax's interface.

    One sees `view_size` x `view_size` cells around oneself, always with the same side
    up: a one-hot vector, cell by cell, of {wall, object 1, ..., object K}, where all
    cells outside are wall. Neither order nor progress is seen. An object that comes
    back below the agent is not fetched until the agent moves onto it anew.

    Episodes are cut after `max_steps_in_episode` steps. Nothing terminates them.

    Args:
      view_size: below `size`, or one need not search.

    Raises:
      ValueError: `view_size` is even or below 3, or objects and agent do not all find a
        cell, or there are fewer than two objects, which have no order.
    """

    def __init__(self, size: int = 7, num_objects: int = 3, view_size: int = 5):
        if view_size < 3 or view_size % 2 == 0:
            raise ValueError(f"view_size must be odd, at least 3, got {view_size}")
        if not 2 <= num_objects < size**2:
            raise ValueError(
                f"num_objects must be at least 2, and at most {size**2 - 1} beside the"
                f" agent on {size} x {size} cells, got {num_objects}"
            )
        super().__init__(size, 4, window_size=view_size, num_kinds=num_objects + 1)
        self.num_objects, self.view_size = num_objects, view_size

    @property
    def default_params(self) -> MetaFetchParams:
        return MetaFetchParams()

    def reset_env(
        self, key: PRNGKey, params: MetaFetchParams
    ) -> tuple[Float[Array, " D"], MetaFetchState]:
        """Agent, objects and order are drawn, all uniformly."""
        uniform = jax.random.uniform(key, (2 * self.num_objects + 1,))
        cells = _distinct(uniform[self.num_objects :], self.size**2)
        rows, columns = cells // self.size, cells % self.size
        state = MetaFetchState(
            row=rows[0],
            column=columns[0],
            object_rows=rows[1:],
            object_columns=columns[1:],
            ranks=_distinct(uniform[: self.num_objects], self.num_objects),
            progress=jnp.int32(0),
            paid=jnp.int32(0),
            time=jnp.int32(0),
        )
        return self.observation(state), state

    def step_env(
        self,
        key: PRNGKey,
        state: MetaFetchState,
        action: Int[Array, ""] | int,
        params: MetaFetchParams,
    ) -> Stepped[MetaFetchState]:
        """Moves, and fetches what is there."""
        action = jnp.asarray(action)
        row = jnp.clip(state.row + towards(action, DOWN, UP), 0, self.size - 1)
        column = state.column + towards(action, RIGHT, LEFT)
        column = jnp.clip(column, 0, self.size - 1)
        there = (state.object_rows == row) & (state.object_columns == column)
        # A bump would fetch what came back below the agent, which changes nothing: it
        # is not the first of the order, and no progress is there to be lost.
        fetched = there & (state.ranks >= state.progress)
        correct = jnp.any(fetched & (state.ranks == state.progress))
        reward = (correct & (state.progress >= state.paid)).astype(jnp.float32)
        progress = jnp.where(jnp.any(fetched) & ~correct, 0, state.progress + correct)
        paid = jnp.maximum(state.paid, progress)
        complete = progress == self.num_objects
        state = state._replace(
            row=row,
            column=column,
            progress=jnp.where(complete, 0, progress),
            paid=jnp.where(complete, 0, paid),
            time=state.time + 1,
        )
        terminated = self.is_terminated(state, params)
        info = {"discount": self.discount(state, params)}
        return self.observation(state), state, reward, terminated, info

    def observation(self, state: MetaFetchState) -> Float[Array, " D"]:
        """The window, one-hot."""
        around = jnp.arange(self.view_size) - self.view_size // 2
        rows, columns = (state.row + around)[:, None], (state.column + around)[None]
        outside = (rows < 0) | (rows >= self.size)
        outside |= (columns < 0) | (columns >= self.size)
        kinds = jnp.where(outside, 0, -1)
        # Much faster on CPU than one comparison with all objects: its arrays would have
        # an axis as short as K, and XLA would compute the step anew in each element.
        for i in range(self.num_objects):
            there = (rows == state.object_rows[i]) & (state.ranks[i] >= state.progress)
            there &= columns == state.object_columns[i]
            kinds = jnp.where(there, i + 1, kinds)
        return self.shown(kinds)

    def is_terminated(
        self, state: MetaFetchState, params: MetaFetchParams
    ) -> Bool[Array, ""]:
        """Never."""
        return jnp.zeros_like(state.time, bool)

    def draw(self, state: MetaFetchState) -> UInt8[np.ndarray, "H W 3"]:
        """The whole grid; what the agent sees is brighter. Below it the order, from the
        left: what is next is framed, what pays no more in this pass is underlined, and
        what was fetched is hollow, as it is on the grid."""
        width = max(self.size, self.num_objects) + 2
        colours = np.full((self.size + 3, width, 3), drawing.WALL, np.uint8)
        grid = colours[: self.size + 2, : self.size + 2]
        grid[1:-1, 1:-1] = drawing.FLOOR
        row, column = int(state.row) + 1, int(state.column) + 1
        grid[:] = drawing.lit(grid, row, column, self.view_size)
        picture = drawing.enlarge(colours)
        for i, rank in enumerate(state.ranks):
            hue = (0.6 + i / self.num_objects) % 1
            colour = 255 * np.array(colorsys.hsv_to_rgb(hue, 0.75, 0.85))
            place = int(state.object_rows[i]) + 1, int(state.object_columns[i]) + 1
            on_grid = drawing.cell(picture, width, *place)
            in_order = drawing.cell(picture, width, self.size + 2, int(rank) + 1)
            shape = drawing.disc(len(in_order), 0.8)
            if rank < state.progress:
                shape &= ~drawing.disc(len(in_order), 0.6)
            on_grid[shape] = in_order[shape] = colour
            if rank == state.progress:
                in_order[drawing.frame(len(in_order))] = drawing.MARK
            if rank < state.paid:
                in_order[-3:] = drawing.FLOOR
        agent = drawing.cell(picture, width, row, column)
        agent[drawing.disc(len(agent), 0.45)] = drawing.AGENT
        return picture


def _distinct(uniform: Float[Array, " count"], num_values: int) -> Int[Array, " count"]:
    """Different numbers from 0 .. num_values - 1, in random order.

    They are the first ones of a Fisher-Yates shuffle, whose array is not needed: to
    know what is at a position, it is enough to know what was swapped into it. Sorting a
    random number for each cell would cost more than a step.

    Args:
      uniform: from [0, 1), each for one number.
    """
    values, swapped = [], []
    for i in range(len(uniform)):
        position = i + (uniform[i] * (num_values - i)).astype(jnp.int32)
        value, at_i = position, jnp.int32(i)
        for earlier, put_there in swapped:
            value = jnp.where(position == earlier, put_there, value)
            at_i = jnp.where(earlier == i, put_there, at_i)
        values.append(value)
        swapped.append((position, at_i))
    return jnp.stack(values)
