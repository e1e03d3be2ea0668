"""Goal velocities: a cart with a pendulum runs as fast as a goal that it is not shown.

A small body with the tasks of the half-cheetah of Finn et al., arXiv:1703.03400,
section 5.3: the goals are the paper's, the body is ours.
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

_FORCE = 3.0
"""Of an action of 1 on the cart, which has mass 1: at most 3 per second in the end."""
_DRAG = 1.0
"""Of the cart, per second."""
_DAMPING = 0.5
"""Of the pendulum, per second."""
_GRAVITY = 9.81
"""Over a length of 1."""
_SECONDS = 0.05
"""Of a step."""
_EFFORT = 0.05
"""Cost of an action, times its square."""
_FASTEST = 2.0


class GoalVelocityParams(NamedTuple):
    """A task, which may be traced."""

    goal: Float[Array, "*B"]
    """Per second, to the right."""
    max_steps_in_episode: Int[Array, "*B"] | int

    def replace(self, **changes: Any) -> "GoalVelocityParams":
        return self._replace(**changes)


class GoalVelocityState(NamedTuple):
    """How the cart moves, how the pendulum hangs, and after how many steps."""

    velocity: Float[Array, "*B"]
    angle: Float[Array, "*B"]
    """0 where it hangs down."""
    spin: Float[Array, "*B"]
    time: Int[Array, "*B"]


class GoalVelocity(environment.Environment):
    """A cart on a line from which a light pendulum hangs, with gymnax's interface.

    It begins at rest, and sees its velocity and sine, cosine and spin of the pendulum.
    An action in [-1, 1] pushes it; what pays is minus the distance of its velocity from
    the goal, less a little for the push and for how far the pendulum swings. Episodes
    are cut after `length` steps. Nothing terminates them.
    """

    def __init__(self, length: int = 100):
        refuse(length=length)
        self.length = length

    @property
    def name(self) -> str:
        return "GoalVelocity"

    @property
    def default_params(self) -> GoalVelocityParams:
        """To stand still."""
        return GoalVelocityParams(jnp.float32(0.0), self.length)

    def action_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,), jnp.float32)

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (4,), jnp.float32)

    def reset_env(
        self, key: PRNGKey, params: GoalVelocityParams
    ) -> tuple[Float[Array, "4"], GoalVelocityState]:
        """At rest, but for a small swing."""
        angle, spin = jax.random.uniform(key, (2,), minval=-0.05, maxval=0.05)
        state = GoalVelocityState(jnp.float32(0.0), angle, spin, jnp.int32(0))
        return _shown(state), state

    def step_env(
        self,
        key: PRNGKey,
        state: GoalVelocityState,
        action: Float[Array, "1"],
        params: GoalVelocityParams,
    ) -> Stepped[GoalVelocityState]:
        """Pushes, and pays."""
        push = jnp.clip(action[0], -1.0, 1.0)
        acceleration = _FORCE * push - _DRAG * state.velocity
        # The pendulum is too light to push back.
        turn = -_GRAVITY * jnp.sin(state.angle) - _DAMPING * state.spin
        turn -= acceleration * jnp.cos(state.angle)
        velocity = state.velocity + _SECONDS * acceleration
        spin = state.spin + _SECONDS * turn
        angle = state.angle + _SECONDS * spin
        state = GoalVelocityState(velocity, angle, spin, state.time + 1)
        costs = _EFFORT * jnp.square(push) + _EFFORT * (1.0 - jnp.cos(angle))
        reward = -jnp.abs(velocity - params.goal) - costs
        return _shown(state), state, reward, self.is_terminated(state, params), {}

    def is_terminated(
        self, state: GoalVelocityState, params: GoalVelocityParams
    ) -> Bool[Array, ""]:
        """Never."""
        return jnp.zeros_like(state.time, bool)


def goal_velocity(length: int = 100) -> Tasks:
    """Goals that are uniform in [0, 2]; episodes are cut after `length` steps.

    Raises:
      RefusedError: `length` is below 1.
    """

    def drawn(key: PRNGKey) -> GoalVelocityParams:
        return GoalVelocityParams(jax.random.uniform(key, (), maxval=_FASTEST), length)

    return Tasks(GoalVelocity(length), drawn)


def _shown(state: GoalVelocityState) -> Float[Array, "4"]:
    swing = jnp.sin(state.angle), jnp.cos(state.angle)
    return jnp.stack([state.velocity, *swing, state.spin])
