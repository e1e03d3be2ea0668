"""Bernoulli bandits: arms that pay 1 or 0, each with a probability of its own.

Source: Duan et al., arXiv:1611.02779, section 3.1.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.envs.grids import Stepped
from jaxrl_par.envs.tasks.base import Tasks
from jaxrl_par.errors import refuse
from jaxrl_par.types import PRNGKey


class BanditParams(NamedTuple):
    """A task, which may be traced."""

    probabilities: Float[Array, "*B K"]
    """That an arm pays 1, of each."""
    max_steps_in_episode: Int[Array, "*B"] | int = 1

    def replace(self, **changes: Any) -> "BanditParams":
        return self._replace(**changes)


class BanditState(NamedTuple):
    """Pulls in the episode: none, or one."""

    time: Int[Array, "*B"]


class Bandit(environment.Environment):
    """`num_arms` arms, with gymnax's interface. An episode is one pull, and nothing is
    seen: the observation is a zero.

    Raises:
      RefusedError: there is no arm.
    """

    def __init__(self, num_arms: int = 5):
        refuse(num_arms=num_arms)
        self.num_arms = num_arms

    @property
    def name(self) -> str:
        return f"Bandit-{self.num_arms}"

    @property
    def num_actions(self) -> int:
        return self.num_arms

    @property
    def default_params(self) -> BanditParams:
        """All arms pay in half of all pulls."""
        return BanditParams(jnp.full(self.num_arms, 0.5))

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(self.num_arms)

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(0.0, 0.0, (1,), jnp.float32)

    def reset_env(
        self, key: PRNGKey, params: BanditParams
    ) -> tuple[Float[Array, "1"], BanditState]:
        """Before a pull."""
        return jnp.zeros(1), BanditState(jnp.int32(0))

    def step_env(
        self,
        key: PRNGKey,
        state: BanditState,
        action: Int[Array, ""] | int,
        params: BanditParams,
    ) -> Stepped[BanditState]:
        """Pulls an arm."""
        pays = jax.random.bernoulli(key, params.probabilities[action])
        state = BanditState(state.time + 1)
        terminated = self.is_terminated(state, params)
        return jnp.zeros(1), state, pays.astype(jnp.float32), terminated, {}

    def is_terminated(
        self, state: BanditState, params: BanditParams
    ) -> Bool[Array, ""]:
        """After a pull."""
        return state.time >= 1


def bernoulli_bandits(num_arms: int = 5) -> Tasks:
    """Bandits whose arms pay with probabilities that are uniform in [0, 1].

    Raises:
      RefusedError: there is no arm.
    """
    return Tasks(Bandit(num_arms), partial(_drawn, num_arms=num_arms))


def _drawn(key: PRNGKey, num_arms: int) -> BanditParams:
    return BanditParams(jax.random.uniform(key, (num_arms,)))
