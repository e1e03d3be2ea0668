"""How tables act: greedily but for a rate of exploration that is annealed."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par import exploration
from jaxrl_par.algorithms.episodic.config import EpisodicConfig
from jaxrl_par.elapsed import Elapsed
from jaxrl_par.errors import RefusedError
from jaxrl_par.masks import allowed
from jaxrl_par.networks.heads import refuse_mask
from jaxrl_par.types import (
    ActFn,
    Carry,
    Discrete,
    Obs,
    PRNGKey,
    Specs,
    TimeStep,
)


def acting(
    read: Callable[[Any, TimeStep], Float[Array, "B A"]], config: EpisodicConfig
) -> tuple[ActFn, ActFn]:
    """(act, greedy) by values of all actions. Neither changes a table.

    Args:
      read: (parameters, which have `elapsed`, and step) -> values
    """

    def act(params: Any, carry: Carry, step: TimeStep, key: PRNGKey):
        epsilon = annealed(params.elapsed, config)
        action = exploration.epsilon_greedy(key, read(params, step), epsilon)
        return action, carry, {}

    def greedy(params: Any, carry: Carry, step: TimeStep, key: PRNGKey):
        del key  # the largest needs none
        values = read(params, step)
        return jnp.argmax(values, axis=-1).astype(jnp.int32), carry, {}

    return act, greedy


def annealed(elapsed: Elapsed, config: EpisodicConfig) -> Float[Array, ""]:
    """The rate of exploration."""
    done = elapsed.fraction(config.anneal_steps)
    return (1.0 - done) * config.epsilon_start + done * config.epsilon_final


def possible(values: Float[Array, "*N A"], obs: Obs) -> Float[Array, "*N A"]:
    """Values, -inf of those that the mask of these observations does not allow."""
    mask = allowed(obs)
    return values if mask is None else jnp.where(mask, values, -jnp.inf)


def largest(values: Float[Array, "*N A"], obs: Obs) -> Float[Array, "*N"]:
    """That of what is allowed; 0 where nothing is, as in the final observation of a
    game."""
    if allowed(obs) is not None:
        values = exploration.possible_values(possible(values, obs))
    return jnp.max(values, axis=-1)


def num_actions(specs: tuple[Specs, Specs]) -> int:
    """A, of these observations and actions.

    Raises:
      RefusedError: actions cannot be counted, or the mask is of others.
    """
    observation_spec, action_spec = specs
    if not isinstance(action_spec, Discrete) or action_spec.shape:
        raise RefusedError(
            "a table for each action needs a single Discrete action, not"
            f" {action_spec!r}: for others take ppo, or another actor-critic"
        )
    if (mask := allowed(observation_spec)) is not None:
        refuse_mask(action_spec, mask)
    return action_spec.num_values
