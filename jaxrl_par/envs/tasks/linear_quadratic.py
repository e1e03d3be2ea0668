"""Linear systems with quadratic costs, whose best policy is known: u = K x.

    x[t+1] = A x[t] + B u[t],   reward = -1/2 (x[t]^T Q x[t] + u[t]^T R u[t])

By default a chain: each state is pushed by the next one, and inputs push the last ones.
With one state and one input A = B = Q = R = 1, and without a discount K is minus the
golden ratio's reciprocal, -0.618034. With two states and one input it is the double
integrator in discrete time, K = (-0.4221, -1.2439).

Source: Bertsekas, Dynamic Programming and Optimal Control, volume 1, section 3.1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.envs.grids import Stepped
from jaxrl_par.errors import RefusedError, above, refuse, refuse_any
from jaxrl_par.types import PRNGKey

_STEPS = 10_000
"""Of the recursion, after which it has converged or will not."""
_MOST = 1e100
"""Costs that are infinite."""


class LinearQuadraticParams(NamedTuple):
    """A system, which may be traced."""

    dynamics: Float[Array, "*B N N"]
    """A."""
    inputs: Float[Array, "*B N M"]
    """B."""
    state_cost: Float[Array, "*B N N"]
    """Q."""
    input_cost: Float[Array, "*B M M"]
    """R."""
    max_steps_in_episode: Int[Array, "*B"] | int

    def replace(self, **changes: Any) -> "LinearQuadraticParams":
        return self._replace(**changes)


class LinearQuadraticState(NamedTuple):
    """Where the system is, and after how many steps."""

    x: Float[Array, "*B N"]
    time: Int[Array, "*B"]


class LinearQuadratic(environment.Environment):
    """A linear system with gymnax's interface, which shows its state.

    It begins uniformly in [-1, 1]^N. Episodes are cut after `length` steps, and nothing
    terminates them. Inputs are bounded by `bound`, which may be infinite: the best
    policy is linear as long as it does not meet the bounds.
    """

    def __init__(
        self, states: int, inputs: int, *, bound: float = 4.0, length: int = 20
    ):
        """
        Raises:
          RefusedError: a size or `bound` is out of range, or there are more inputs than
            states.
        """
        refuse(states=states, inputs=inputs, length=length)
        refuse_any(above({"bound": bound}, bound=0))
        if inputs > states:
            raise RefusedError(
                f"inputs must be at most states = {states}, got {inputs}"
            )
        self.states, self.inputs = states, inputs
        self.bound, self.length = float(bound), length

    @property
    def name(self) -> str:
        return f"LQR-{self.states}x{self.inputs}"

    @property
    def default_params(self) -> LinearQuadraticParams:
        """The chain."""
        eye = np.eye(self.states, dtype=np.float32)
        shifted = np.eye(self.states, k=1, dtype=np.float32)
        pushed = eye[:, self.states - self.inputs :]
        costs = jnp.asarray(eye), jnp.eye(self.inputs)
        return LinearQuadraticParams(
            jnp.asarray(eye + shifted), jnp.asarray(pushed), *costs, self.length
        )

    def action_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-self.bound, self.bound, (self.inputs,), jnp.float32)

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (self.states,), jnp.float32)

    def reset_env(
        self, key: PRNGKey, params: LinearQuadraticParams
    ) -> tuple[Float[Array, " N"], LinearQuadraticState]:
        """Anywhere in [-1, 1]^N."""
        x = jax.random.uniform(key, (self.states,), minval=-1.0)
        return x, LinearQuadraticState(x, jnp.int32(0))

    def step_env(
        self,
        key: PRNGKey,
        state: LinearQuadraticState,
        action: Float[Array, " M"],
        params: LinearQuadraticParams,
    ) -> Stepped[LinearQuadraticState]:
        """Pays for the state and the input, and moves."""
        u = jnp.clip(action, -self.bound, self.bound)
        cost = state.x @ params.state_cost @ state.x + u @ params.input_cost @ u
        x = params.dynamics @ state.x + params.inputs @ u
        state = LinearQuadraticState(x, state.time + 1)
        return x, state, -0.5 * cost, self.is_terminated(state, params), {}

    def is_terminated(
        self, state: LinearQuadraticState, params: LinearQuadraticParams
    ) -> Bool[Array, ""]:
        """Never."""
        return jnp.zeros_like(state.time, bool)


class Answer(NamedTuple):
    """What is best in a system, in float64."""

    gains: Float[np.ndarray, "M N"]
    """K of the best policy u = K x."""
    value: Float[np.ndarray, "N N"]
    """P: from x on, the discounted costs of the best policy are x^T P x / 2."""
    curvature: Float[np.ndarray, "M M"]
    """R + discount B^T P B: of minus the value of an input."""


def answer(params: LinearQuadraticParams, discount: float = 1.0) -> Answer:
    """The best policy of episodes without an end, by the Riccati recursion.

    A time limit changes nothing for who bootstraps there.

    Raises:
      RefusedError: the costs of every policy are infinite.
    """
    a, b, q, r = (np.asarray(x, np.float64) for x in params[:4])
    value = q
    for _ in range(_STEPS):
        curvature = r + discount * b.T @ value @ b
        gains = -discount * np.linalg.solve(curvature, b.T @ value @ a)
        new = q + discount * a.T @ value @ (a + b @ gains)
        if np.allclose(new, value, rtol=1e-13, atol=0.0):
            return Answer(gains, new, curvature)
        if np.max(np.abs(new)) > _MOST:
            break
        value = new
    raise RefusedError("there is no policy of finite costs for this system")
