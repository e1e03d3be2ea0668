"""Random tabular MDPs: states, actions, and nothing that one could generalise.

Source: Duan et al., arXiv:1611.02779, section 3.2; Osband et al., arXiv:1306.0940.
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


class MDPParams(NamedTuple):
    """A task, which may be traced."""

    transitions: Float[Array, "*B S A S"]
    """P(next state | state, action)."""
    means: Float[Array, "*B S A"]
    """Of the rewards, which are normal with variance 1."""
    max_steps_in_episode: Int[Array, "*B"] | int

    def replace(self, **changes: Any) -> "MDPParams":
        return self._replace(**changes)


class MDPState(NamedTuple):
    """Where one is, and after how many steps."""

    place: Int[Array, "*B"]
    time: Int[Array, "*B"]


class MDP(environment.Environment):
    """An MDP of tables, with gymnax's interface. The state is seen, one-hot; episodes
    begin in state 0 and are cut after `length` steps.

    Raises:
      RefusedError: a number is below 1.
    """

    def __init__(self, num_states: int = 10, num_choices: int = 5, length: int = 10):
        refuse(num_states=num_states, num_choices=num_choices, length=length)
        self.num_states, self.length = num_states, length
        self._actions = spaces.Discrete(num_choices)

    @property
    def name(self) -> str:
        return f"MDP-{self.num_states}x{self.num_actions}"

    @property
    def num_actions(self) -> int:
        return self._actions.n

    @property
    def default_params(self) -> MDPParams:
        """All that may happen is equally likely, and pays 1 in the mean."""
        table = (self.num_states, self.num_actions)
        chance = jnp.full((*table, self.num_states), 1.0 / self.num_states)
        return MDPParams(chance, jnp.ones(table), self.length)

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return self._actions

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (self.num_states,), jnp.float32)

    def reset_env(
        self, key: PRNGKey, params: MDPParams
    ) -> tuple[Float[Array, " S"], MDPState]:
        """In state 0."""
        state = MDPState(jnp.int32(0), jnp.int32(0))
        return self._shown(state), state

    def step_env(
        self,
        key: PRNGKey,
        state: MDPState,
        action: Int[Array, ""] | int,
        params: MDPParams,
    ) -> Stepped[MDPState]:
        """Pays, and moves."""
        place_key, reward_key = jax.random.split(key)
        below = jnp.cumsum(params.transitions[state.place, action])
        # The last sum is 1 but for rounding, and is no bound.
        place = jnp.sum(jax.random.uniform(place_key) >= below[:-1])
        noise = jax.random.normal(reward_key)
        reward = params.means[state.place, action] + noise
        state = MDPState(place.astype(jnp.int32), state.time + 1)
        return self._shown(state), state, reward, self.is_terminated(state, params), {}

    def is_terminated(self, state: MDPState, params: MDPParams) -> Bool[Array, ""]:
        """Never."""
        return jnp.zeros_like(state.time, bool)

    def _shown(self, state: MDPState) -> Float[Array, " S"]:
        return jax.nn.one_hot(state.place, self.num_states)


def random_mdps(num_states: int = 10, num_choices: int = 5, length: int = 10) -> Tasks:
    """MDPs whose rows of transitions are uniform among all distributions (Dirichlet of
    ones), and whose mean rewards are normal with mean 1 and variance 1.

    Raises:
      RefusedError: a number is below 1.
    """

    def drawn(key: PRNGKey) -> MDPParams:
        transition_key, mean_key = jax.random.split(key)
        table = (num_states, num_choices)
        # Exponentials over their sum are a Dirichlet of ones.
        weights = jax.random.exponential(transition_key, (*table, num_states))
        transitions = weights / jnp.sum(weights, axis=-1, keepdims=True)
        return MDPParams(transitions, 1.0 + jax.random.normal(mean_key, table), length)

    return Tasks(MDP(num_states, num_choices, length), drawn)
