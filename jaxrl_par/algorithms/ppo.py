"""Proximal policy optimisation (PPO): several epochs of minibatches on one unroll.

The ratio pi / mu of the policy that learns to the one that acted is kept near 1 by
clipping its gain. Without memory a minibatch is a set of rows, with memory a set of
whole sequences, read from the memory they were acted with.

Advantages are normalised over the whole batch of all devices, not over each minibatch:
the sum of the minibatches' losses is then that of the batch, and it does not depend on
how many devices share it.

Sources: Schulman et al., arXiv:1707.06347; details as in Andrychowicz et al.,
arXiv:2006.05990.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxrl_par import losses, returns
from jaxrl_par.agents import TrainState, accept, trained_by
from jaxrl_par.axis import Axis
from jaxrl_par.errors import above, at_least, not_between
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
from jaxrl_par.statistics import standardized
from jaxrl_par.types import (
    Action,
    Agent,
    Carry,
    Metrics,
    Params,
    TimeStep,
    Trajectory,
)

METRICS = {
    "kl": Metric(
        "nats",
        "of the policy from the one that acted, as mean of ratio - 1 - log ratio",
    ),
    "clipped": Metric(
        "share of rows", "where the ratio of probabilities is outside the clip"
    ),
}


@dataclass(frozen=True)
class PPOConfig:
    """Hyperparameters of PPO."""

    gamma: float = 0.99
    """Discount per environment step."""
    gae_lambda: float = 0.95
    """Decay of TD errors in an advantage: less bias towards 1, less noise towards 0."""
    clip: float = 0.2
    """How far the ratio may move from 1, and a value from its old estimate."""
    clip_values: bool = True
    """Whether a value's move counts only up to `clip`."""
    value_cost: float = 0.5
    """Weight of half the squared value error, relative to the policy loss."""
    entropy_cost: float = 0.01
    """Weight of the entropy bonus, per nat."""
    normalize_advantages: bool = True
    """To mean 0 and standard deviation 1 over the joint batch."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_between(self, gamma=(0, 1), gae_lambda=(0, 1))
        return found + above(self, clip=0) + at_least(self, value_cost=0)


class PPOBatch(NamedTuple):
    """Rows [N, ...] without memory; with memory, sequences [B, T, ...]."""

    steps: TimeStep
    action: Action
    log_prob: Float[Array, "*N"]
    """log mu(a|o) of the policy that acted."""
    value: Float[Array, "*N"]
    advantage: Float[Array, "*N"]
    target: Float[Array, "*N"]
    carry: Carry
    """Memory before each sequence, [B, ...]; () without."""


def ppo(
    network: Network,
    optimizer: optax.GradientTransformation,
    config: PPOConfig = PPOConfig(),
) -> Agent:
    """PPO for any actions, with or without memory; see `loops.epochs`.

    Args:
      network: maps steps to (distribution of the action, values [...]).
      optimizer: clips, schedules and scales the gradient of each minibatch.
      config: may hold traced numbers, so that a population can be vmapped over them.

    Raises:
      ValueError: the config is out of range.
    """
    accept(network, optimizer, config, PPOConfig)

    def prepare(state: TrainState, trajectory: Trajectory, axis: Axis) -> PPOBatch:
        return make_batch(state.params, trajectory, network, config, axis)

    return trained_by(
        network,
        optimizer,
        partial(loss, network=network, config=config),
        record_log_prob=True,
        prepare=prepare,
    )


def make_batch(
    params: Params,
    trajectory: Trajectory,
    network: Network,
    config: PPOConfig,
    axis: Axis,
) -> PPOBatch:
    """Values, advantages and targets of the parameters that acted."""
    (_, values), _ = network.unroll(params, trajectory.carry, trajectory.steps)
    last = trajectory.steps.last[:-1]
    advantages = returns.gae(
        rewards=trajectory.reward,
        discounts=config.gamma * trajectory.discount,
        last=last,
        values=values,
        lambda_=config.gae_lambda,
    )
    targets = advantages + values[:-1]
    if config.normalize_advantages:
        advantages = standardized(advantages, ~last, axis)
    has_memory = bool(jax.tree.leaves(trajectory.carry))
    batch = PPOBatch(
        steps=trajectory.rows,
        action=trajectory.action,
        log_prob=trajectory.extras["log_prob"],
        value=values[:-1],
        advantage=advantages,
        target=targets,
        carry=(),
    )
    if has_memory:
        batch = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), batch)
        return batch._replace(carry=trajectory.carry)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)


def loss(
    params: Params, batch: PPOBatch, network: Network, config: PPOConfig
) -> tuple[Float[Array, ""], Metrics]:
    """Clipped policy and value losses and entropy bonus, averaged over the rows."""
    has_memory = bool(jax.tree.leaves(batch.carry))
    if has_memory:
        rows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), batch._replace(carry=()))
        (policy, values), _ = network.unroll(params, batch.carry, rows.steps)
    else:
        rows = batch
        (policy, values), _ = network.apply(params, (), rows.steps)
    last = rows.steps.last
    log_ratios = policy.log_prob(rows.action) - rows.log_prob
    policy_losses = losses.clipped_surrogate(log_ratios, rows.advantage, config.clip)
    if config.clip_values:
        value_losses = losses.clipped_value_loss(
            values, rows.value, rows.target, config.clip
        )
    else:
        value_losses = 0.5 * jnp.square(values - rows.target)
    entropies = policy.entropy()
    total = losses.over_rows(
        policy_losses
        + config.value_cost * value_losses
        - config.entropy_cost * entropies,
        last,
    )
    ratios = jnp.exp(log_ratios)
    outside = jnp.where(jnp.abs(ratios - 1.0) > config.clip, 1.0, 0.0)
    metrics: Metrics = {
        "policy_loss": losses.row_mean(policy_losses, last),
        "value_loss": losses.row_mean(value_losses, last),
        "entropy": losses.row_mean(entropies, last),
        # E[(r - 1) - log r], Schulman (2020), Approximating KL divergence.
        "kl": losses.row_mean(ratios - 1.0 - log_ratios, last),
        "clipped": losses.row_mean(outside, last),
    }
    return total, metrics
