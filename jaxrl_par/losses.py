"""Losses of actor-critic methods, each a mean or a sum over the rows of a batch.

A row that is `last` is no transition: its weight is 0. A mean divides by the number of
all rows, with the weightless ones, because only a constant makes the mean over devices
the mean over their joint batch.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_par.measured import Metric
from jaxrl_par.types import Extras, Mean, Metrics

METRICS = {
    "policy_loss": Metric(
        "1", "what the policy's part of the loss is, before costs of entropy and KL"
    ),
    "value_loss": Metric(
        "squared returns",
        "error of values or Q-values: squared, or Huber's, as the algorithm says",
    ),
    "entropy": Metric("nats", "that of the policy in the rows learned from"),
}

Rows = Float[Array, "*N"]
Reduction = Literal["mean", "sum"]


def over_rows(
    x: Rows, last: Bool[Array, "*N"], reduction: Reduction = "mean"
) -> Float[Array, ""]:
    """Mean or sum over rows, of which those that are `last` count as 0.

    Gradients of a sum are as many times larger as there are rows: a matter of the rate.
    """
    total = jnp.sum(jnp.where(last, 0.0, x))
    return total if reduction == "sum" else total / x.size


def row_mean(x: Rows, last: Bool[Array, "*N"]) -> Mean:
    """The mean over rows that are not `last`, for metrics."""
    count = jnp.sum(jnp.where(last, 0.0, 1.0))
    return Mean(jnp.sum(jnp.where(last, 0.0, x)), count)


def row_means(last: Bool[Array, "*N"], **rows: Rows) -> Metrics:
    """`row_mean` of each, by name."""
    return {name: row_mean(x, last) for name, x in rows.items()}


def of_sequences(
    errors: Float[Array, "L *K"], last: Bool[Array, "L *K"], eta: float
) -> Float[Array, "*K"]:
    """eta max |error| + (1 - eta) mean |error| of each sequence, over its rows that are
    not `last`; 0 where all are.

    Source: Kapturowski et al., R2D2 (ICLR 2019), section 2.3.
    """
    sizes = jnp.where(last, 0.0, jnp.abs(errors))
    number = jnp.maximum(jnp.sum(~last, axis=0), 1).astype(sizes.dtype)
    return eta * jnp.max(sizes, axis=0) + (1.0 - eta) * jnp.sum(sizes, axis=0) / number


def in_use(cost: Any) -> bool:
    """Whether a weight is not 0, or may not be because it is traced."""
    return not isinstance(cost, int | float) or cost != 0


def acting_policy(extras: Extras) -> Any:
    """mu, the distributions that acted, [T, B, ...]; no gradient flows into them.

    Raises:
      ValueError: they were not recorded.
    """
    if "policy" not in extras:
        raise ValueError(
            'behaviour_cost needs the distribution that acted in extras["policy"],'
            f" found {sorted(extras)}: record it, or set the cost to 0"
        )
    return jax.lax.stop_gradient(extras["policy"])


def clipped_surrogate(log_ratios: Rows, advantages: Rows, clip: float) -> Rows:
    """PPO's pessimistic policy loss of each row.

        -min(ratio A, clip(ratio, 1 - clip, 1 + clip) A),   ratio = exp(log_ratios)

    Where the clipped side is the smaller it is constant, and however large the ratio
    is, its slope is 0. Source: Schulman et al., arXiv:1707.06347, equation 7.
    """
    loses = advantages < 0.0
    low, high = jnp.log(jnp.maximum(1.0 - clip, 0.0)), jnp.log(1.0 + clip)
    over = jnp.where(loses, log_ratios < low, log_ratios > high)
    bounds = jnp.where(loses, 1.0 - clip, 1.0 + clip)
    # Chosen before the exponential too: infinity times a slope of 0 is no number.
    ratios = jnp.exp(jnp.where(over, 0.0, log_ratios))
    return -jnp.where(over, bounds, ratios) * advantages


def clipped_value_loss(
    values: Rows, old_values: Rows, targets: Rows, clip: float
) -> Rows:
    """Half the squared error, or that of a value that moved by at most `clip`.

    The larger of both counts. Source: Dhariwal et al., OpenAI Baselines (2017), ppo2.
    """
    near = old_values + jnp.clip(values - old_values, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(values - targets), jnp.square(near - targets))
