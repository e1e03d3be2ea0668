"""Navigation in the plane: a point moves to a goal that it does not see.

Source: Finn et al., arXiv:1703.03400, section 5.3, with the settings of its public
code: the reward is the distance, not its square.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.envs.grids import Stepped
from jaxrl_par.envs.tasks.base import Tasks
from jaxrl_par.errors import refuse
from jaxrl_par.types import PRNGKey

_SPEED = 0.1
"""Along each axis, in a step, for an action of 1."""
_NEAR = 0.01
"""Distance along both axes at which the goal is reached."""
_FARTHEST = 0.5
"""Goals are within, along each axis."""


class NavigationParams(NamedTuple):
    """A task, which may be traced."""

    goal: Float[Array, "*B 2"]
    max_steps_in_episode: Int[Array, "*B"] | int

    def replace(self, **changes: Any) -> "NavigationParams":
        return self._replace(**changes)


class NavigationState(NamedTuple):
    """Where the point is, and after how many steps."""

    position: Float[Array, "*B 2"]
    time: Int[Array, "*B"]


class Navigation(environment.Environment):
    """A point in the plane, with gymnax's interface.

    It begins at 0 and sees its position. An action in [-1, 1]^2 moves it by a tenth of
    it, and pays minus the distance from the goal that is then left. The episode ends
    where the goal is nearer than .01 along both axes.
    """

    def __init__(self, length: int = 100):
        refuse(length=length)
        self.length = length

    @property
    def name(self) -> str:
        return "Navigation"

    @property
    def default_params(self) -> NavigationParams:
        """The goal is where the point begins."""
        return NavigationParams(jnp.zeros(2), self.length)

    def action_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (2,), jnp.float32)

    def reset_env(
        self, key: PRNGKey, params: NavigationParams
    ) -> tuple[Float[Array, "2"], NavigationState]:
        """At 0."""
        state = NavigationState(jnp.zeros(2), jnp.int32(0))
        return state.position, state

    def step_env(
        self,
        key: PRNGKey,
        state: NavigationState,
        action: Float[Array, "2"],
        params: NavigationParams,
    ) -> Stepped[NavigationState]:
        """Moves, and pays."""
        position = state.position + _SPEED * jnp.clip(action, -1.0, 1.0)
        state = NavigationState(position, state.time + 1)
        reward = -jnp.sqrt(jnp.sum(jnp.square(position - params.goal)))
        return position, state, reward, self.is_terminated(state, params), {}

    def is_terminated(
        self, state: NavigationState, params: NavigationParams
    ) -> Bool[Array, ""]:
        """At the goal."""
        return jnp.all(jnp.abs(state.position - params.goal) < _NEAR)


def navigation(length: int = 100) -> Tasks:
    """Goals that are uniform in [-.5, .5]^2; episodes are cut after `length` steps.

    Raises:
      RefusedError: `length` is below 1.
    """

    def drawn(key: PRNGKey) -> NavigationParams:
        goal = jax.random.uniform(key, (2,), minval=-_FARTHEST, maxval=_FARTHEST)
        return NavigationParams(goal, length)

    return Tasks(Navigation(length), drawn)
