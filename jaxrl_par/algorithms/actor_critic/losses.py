"""Losses of critics, and the targets that SAC and TD3 have in common."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_par import losses, returns
from jaxrl_par.algorithms.actor_critic.config import TargetsConfig
from jaxrl_par.algorithms.actor_critic.parts import Networks
from jaxrl_par.errors import RefusedError
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
from jaxrl_par.networks.continuous import shown
from jaxrl_par.types import Metrics, Params, TimeStep, Trajectory

METRICS = {
    "q_value": Metric(
        "returns", "mean of the twin critics for the action that was done"
    ),
    "target": Metric("returns", "what both are moved to"),
    "td_error": Metric("returns", "absolute, mean of the twins"),
    "importance_weight": Metric(
        "1", "of the rows drawn by priority; 1 where they are drawn alike"
    ),
}

Rows = Float[Array, "L K"]


class Trainable(NamedTuple):
    """The trained rows of a batch."""

    steps: TimeStep
    """[L, K]"""
    unit: Float[Array, "L K A"]
    """What was acted, in units of the bounds."""
    weight: Rows
    """Importance of each row, 0 where it is `last`."""
    last: Bool[Array, "L K"]

    def mean(self, x: Rows) -> Float[Array, ""]:
        """The weighted mean over all rows, not divided by the sum of weights."""
        same_shape(x, self.weight)
        return losses.over_rows(self.weight * x, self.last)


def trainable(
    batch: Trajectory, nets: Networks, config: TargetsConfig, rows: int | None = None
) -> Trainable:
    """Rows with n - 1 others behind them, or so many.

    Raises:
      RefusedError: there is none.
    """
    if rows is None:
        rows = batch.reward.shape[0] - (config.n_step - 1)
    if rows < 1:
        raise RefusedError(
            f"windows of {batch.reward.shape[0]} rows have none to train with n_step ="
            f" {config.n_step}: replay.Windows takes lookahead = {config.n_step - 1}"
        )
    steps = jax.tree.map(lambda x: x[:rows], batch.steps)
    weight = batch.extras.get("weight", jnp.ones_like(batch.reward))[:rows]
    unit = nets.units.unit(batch.action[:rows])
    return Trainable(steps, unit, weight, steps.last)


def values(
    critic: Network, critics: Params, steps: TimeStep, unit: Float[Array, "L K A"]
) -> Float[Array, "C L K"]:
    """What each critic says of unit actions."""
    seen = shown(steps, unit)
    return jax.vmap(lambda params: critic.unroll(params, (), seen)[0])(critics)


def reached(
    batch: Trajectory, config: TargetsConfig, rows: int, bonus: Rows | None = None
) -> returns.Reached:
    """What the n steps from each of so many rows lead to.

    Args:
      bonus: what is got in the observation after each row of the batch, beside its
        value: it is discounted as that is, and there is none where the episode ended.
    """
    discounts = config.gamma * batch.discount
    rewards = batch.reward
    if bonus is not None:
        same_shape(bonus, rewards)
        rewards = rewards + discounts * bonus
    found = returns.reached(
        rewards=rewards, discounts=discounts, last=batch.rows.last, n=config.n_step
    )
    return returns.Reached(*(x[:rows] for x in found))


def bootstrapped(
    ahead: returns.Reached,
    nets: Networks,
    critics: Params,
    steps: TimeStep,
    unit: Float[Array, "L K A"],
) -> Rows:
    """Targets y: rewards, and the lowest critic's value of these actions after them."""
    lowest = jnp.min(values(nets.critic, critics, steps, unit), axis=0)
    same_shape(lowest, ahead.rewards)
    return ahead.rewards + ahead.discounts * lowest


def critic_loss(
    critics: Params, critic: Network, rows: Trainable, targets: Rows
) -> tuple[Float[Array, ""], Float[Array, "C L K"]]:
    """Half the squared error of each critic, summed over them; and their values."""
    q_values = values(critic, critics, rows.steps, rows.unit)
    same_shape(q_values[0], targets)
    errors = jnp.sum(jnp.square(q_values - targets[None]) / 2, axis=0)
    return rows.mean(errors), q_values


def told(
    rows: Trainable, q_values: Float[Array, "C L K"], targets: Rows, eta: float
) -> tuple[Metrics, Float[Array, " K"]]:
    """Metrics of the critics, and priorities: those of the mean size of their errors,
    not weighted and not squared."""
    errors = jnp.mean(jnp.abs(q_values - targets[None]), axis=0)
    squared = jnp.mean(jnp.square(q_values - targets[None]) / 2, axis=0)
    by_name = {"value_loss": squared, "q_value": jnp.mean(q_values, axis=0)}
    by_name |= {"target": targets, "td_error": errors}
    by_name |= {"importance_weight": rows.weight}
    metrics = losses.row_means(rows.last, **by_name)
    return metrics, losses.of_sequences(errors, rows.last, eta)


def same_shape(x: Array, y: Array) -> None:
    """Accepts two arrays of one shape: of [K] and [K, 1] a difference is [K, K], whose
    mean is a number like any other.

    Raises:
      RefusedError: they differ.
    """
    if x.shape != y.shape:
        raise RefusedError(
            f"values and targets must be of one shape, got {[*x.shape]} and"
            f" {[*y.shape]}"
        )
