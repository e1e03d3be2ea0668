"""What values are to become: rewards, and what is bootstrapped after them."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par import exploration, returns
from jaxrl_par.algorithms.dqn.config import DQNConfig
from jaxrl_par.algorithms.dqn.values import Outputs, Values
from jaxrl_par.types import Trajectory


class Targets(NamedTuple):
    """Of each row, [L, K, *N]."""

    located: Outputs
    """As the network learns them."""
    bootstrap: Outputs
    """The outputs that they are made of, with their probabilities."""


def reached(rows: Trajectory, config: DQNConfig) -> returns.Reached:
    """What the n steps from each row lead to."""
    return returns.reached(
        rewards=rows.reward,
        discounts=config.gamma * rows.discount,
        last=rows.steps.last[:-1],
        n=config.n_step,
    )


def best(outputs: Outputs, by: Outputs, kind: Values) -> Outputs:
    """Outputs [L, K, *N] of the possible action that is best by others' values; both
    are [L, K, A, *N]."""
    values = exploration.possible_values(kind.expected(by))
    return of_action(jnp.argmax(values, axis=-1), outputs)


def targets(
    ahead: returns.Reached, bootstrap: Outputs, kind: Values, config: DQNConfig
) -> Targets:
    """From outputs in the rows ahead, [L, K, *N]."""
    # Where no action is possible, the value is 0.
    none = kind.expected(bootstrap) == -jnp.inf
    bootstrap = where(none, 0.0, bootstrap)
    values = kind.located(bootstrap)
    rewards, discounts = (
        x.reshape(*x.shape, *[1] * (values.ndim - x.ndim))
        for x in (ahead.rewards, jnp.where(none, 0.0, ahead.discounts))
    )
    if config.rescale is None:
        return Targets(rewards + discounts * values, bootstrap)
    located = rewards + discounts * returns.unsquashed(values, config.rescale)
    return Targets(returns.squashed(located, config.rescale), bootstrap)


def of_action(action: Int[Array, "*T K"], outputs: Outputs) -> Outputs:
    """What outputs [*T, K, A, *N] say of the action, [*T, K, *N]."""
    index = action.reshape(*action.shape, *[1] * (outputs.ndim - action.ndim))
    return jnp.take_along_axis(outputs, index, axis=action.ndim).squeeze(action.ndim)


def where(
    chosen: Bool[Array, "L K"], x: float, y: Float[Array, "L K *N"]
) -> Float[Array, "L K *N"]:
    """x in the chosen rows, and y in the others."""
    chosen = chosen.reshape(*chosen.shape, *[1] * (y.ndim - chosen.ndim))
    return jnp.where(chosen, x, y)
