"""Linear systems with quadratic costs: control whose answer is known.

x' = A x + B u + noise      cost (x^T Q x + u^T R u) / 2
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


class LinearSystemParams(NamedTuple):
    """Which system."""

    transition: Float[Array, "D D"]
    """A"""
    effect: Float[Array, "D A"]
    """B"""
    state_cost: Float[Array, "D D"]
    """Q"""
    action_cost: Float[Array, "A A"]
    """R"""
    noise: Float[Array, ""]
    """Its standard deviation, the same along all axes."""
    max_steps_in_episode: Int[Array, ""] | int

    def replace(self, **changes: Any) -> "LinearSystemParams":
        return self._replace(**changes)


class LinearSystemState(NamedTuple):
    """Where it is, and after how many steps."""

    position: Float[Array, "*B D"]
    time: Int[Array, "*B"]


class LinearSystem(Body):
    """A linear system that sees its state, with gymnax's interface.

    It begins anywhere in [-1, 1]^D, and is to come to 0.

    Args:
      params: by default a point in the plane that forces accelerate, without noise.
    """

    def __init__(self, length: int = 50, params: LinearSystemParams | None = None):
        self._params = double_integrator(length) if params is None else params
        size, num_actions = self._params.effect.shape
        super().__init__(length, num_actions, size)

    @property
    def default_params(self) -> LinearSystemParams:
        return self._params._replace(max_steps_in_episode=self.length)

    def reset_env(
        self, key: PRNGKey, params: LinearSystemParams
    ) -> tuple[Float[Array, " D"], LinearSystemState]:
        """Anywhere."""
        size = (params.transition.shape[0],)
        position = jax.random.uniform(key, size, minval=-1.0, maxval=1.0)
        return position, LinearSystemState(position, jnp.int32(0))

    def step_env(
        self,
        key: PRNGKey,
        state: LinearSystemState,
        action: Float[Array, " A"],
        params: LinearSystemParams,
    ) -> Stepped[LinearSystemState]:
        """Moves, and pays for what was."""
        x = state.position
        cost = x @ params.state_cost @ x + action @ params.action_cost @ action
        after = params.transition @ x + params.effect @ action
        after = after + params.noise * jax.random.normal(key, x.shape)
        state = LinearSystemState(after, state.time + 1)
        return after, state, -0.5 * cost, self.is_terminated(state, params), {}

    def succeeded(self, state: LinearSystemState) -> Bool[Array, ""]:
        """Near 0."""
        return jnp.sum(jnp.square(state.position)) < 0.01


def double_integrator(length: int) -> LinearSystemParams:
    """Position and velocity in the plane, accelerated by two forces."""
    eye, none = jnp.eye(2), jnp.zeros((2, 2))
    return LinearSystemParams(
        transition=jnp.block([[eye, _SECONDS * eye], [none, eye]]),
        effect=jnp.concatenate([none, _SECONDS * eye]),
        state_cost=jnp.diag(jnp.array([1.0, 1.0, 0.1, 0.1])),
        action_cost=0.1 * eye,
        noise=jnp.float32(0.0),
        max_steps_in_episode=length,
    )


def golden(length: int) -> LinearSystemParams:
    """x' = x + u at cost (x^2 + u^2) / 2. Its value, in the long run, is the golden
    ratio, and its gain one less than that, negative."""
    one = jnp.ones((1, 1))
    return LinearSystemParams(one, one, one, one, jnp.float32(0.0), length)
