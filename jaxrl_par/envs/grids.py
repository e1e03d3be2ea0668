"""What our worlds of square cells share, with gymnax's interface."""

from typing import Any, TypeVar

import jax.numpy as jnp
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int

State = TypeVar("State")
Stepped = tuple[
    Float[Array, " D"], State, Float[Array, ""], Bool[Array, ""], dict[str, Array]
]
"""(observation, state, reward, terminated, info)"""


class Grid(environment.Environment):
    """`size` x `size` cells, of which one sees a window of one-hot cells."""

    def __init__(self, size: int, num_actions: int, window_size: int, num_kinds: int):
        self.size, self._num_kinds = size, num_kinds
        self._actions = spaces.Discrete(num_actions)
        shape = (window_size**2 * num_kinds,)
        self._window = spaces.Box(0.0, 1.0, shape, jnp.float32)

    @property
    def name(self) -> str:
        return f"{type(self).__name__}-{self.size}x{self.size}"

    @property
    def num_actions(self) -> int:
        return self._actions.n

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return self._actions

    def observation_space(self, params: Any = None) -> spaces.Box:
        """The window, flat."""
        return self._window

    def shown(self, kinds: Int[Array, "S S"]) -> Float[Array, " D"]:
        """The window, one-hot, from the kinds of its cells."""
        one_hot = kinds[..., None] == jnp.arange(self._num_kinds)[None, None]
        return one_hot.astype(jnp.float32).reshape(-1)


def towards(value, plus: int, minus: int) -> Int[Array, "*B"]:
    """1 where the value is `plus`, -1 where it is `minus`, else 0."""
    return (value == plus).astype(jnp.int32) - (value == minus)
