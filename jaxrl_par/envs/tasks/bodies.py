"""What our tasks of control share, with gymnax's interface.

Rewards are minus costs, smooth in the state before the action and in the action, and
paid for these. Nothing terminates an episode.
"""

from typing import Any

import jax.numpy as jnp
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool

from jaxrl_par.errors import refuse


class Body(environment.Environment):
    """Unbounded forces on something, and real numbers that are seen of it.

    Args:
      length: steps after which an episode is cut.
    """

    def __init__(self, length: int, num_actions: int, num_seen: int):
        refuse(length=length)
        self.length, self._num_actions, self._num_seen = length, num_actions, num_seen

    @property
    def name(self) -> str:
        return f"{type(self).__name__}-{self.length}"

    @property
    def num_actions(self) -> int:
        return self._num_actions

    def action_space(self, params: Any = None) -> spaces.Box:
        shape = (self._num_actions,)
        return spaces.Box(-jnp.inf, jnp.inf, shape, jnp.float32)

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (self._num_seen,), jnp.float32)

    def is_terminated(self, state: Any, params: Any) -> Bool[Array, ""]:
        """Never."""
        return jnp.zeros_like(state.time, bool)

    def succeeded(self, state: Any) -> Bool[Array, ""]:
        """Whether an episode may end so."""
        raise NotImplementedError
