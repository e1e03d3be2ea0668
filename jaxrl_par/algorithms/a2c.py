"""Advantage actor-critic (A2C) on batched trajectories.

The policy follows A[t] grad log pi(a[t]|o[t]), with A from `returns.gae` or
`returns.n_step`; the value regresses on A + v; an entropy bonus keeps the policy from
collapsing early. Workers that send `grad` to a server without waiting make it A3C.

Sources: Mnih et al., arXiv:1602.01783, algorithm S3; Clemente et al., arXiv:1705.04862
(batched); Schulman et al., arXiv:1506.02438 (GAE).
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxrl_par import losses, returns
from jaxrl_par.agents import accept, trained_by
from jaxrl_par.errors import ReadIf, at_least, not_between, not_chosen
from jaxrl_par.networks import Network
from jaxrl_par.types import Agent, Metrics, Params, Trajectory


@dataclass(frozen=True)
class A2CConfig:
    """Hyperparameters of A2C."""

    read_if: ClassVar[ReadIf] = {"gae_lambda": ("n_step", (None,))}
    """What each of these fields is for: another one, and its values."""

    gamma: float = 0.99
    """Discount per environment step."""
    gae_lambda: float = 1.0
    """Decay of TD errors in an advantage: less bias towards 1, less noise towards 0."""
    n_step: int | None = None
    """Rewards before bootstrapping, in place of GAE. None takes GAE."""
    value_cost: float = 0.5
    """Weight of half the squared value error, relative to the policy loss."""
    entropy_cost: float = 0.01
    """Weight of the entropy bonus, per nat."""
    reduction: Literal["mean", "sum"] = "mean"
    """How rows make a loss. The papers' workers sum: gradients are then T * B times
    larger, and so the right learning rate of an optimizer without normalisation
    smaller."""

    def problems(self) -> list[str]:
        found = not_between(self, gamma=(0, 1), gae_lambda=(0, 1))
        return found + not_chosen(self) + at_least(self, n_step=1, value_cost=0)


def a2c(
    network: Network,
    optimizer: optax.GradientTransformation,
    config: A2CConfig = A2CConfig(),
) -> Agent:
    """A2C for any actions, with or without memory, by the rules of `algorithms`."""
    accept(network, optimizer, config, A2CConfig)
    of_batch = partial(loss, network=network, config=config)
    return trained_by(network, optimizer, of_batch, reduction=config.reduction)


def loss(
    params: Params, trajectory: Trajectory, network: Network, config: A2CConfig
) -> tuple[Float[Array, ""], Metrics]:
    """Policy, value and entropy losses over the T * B rows."""
    (policy, values), _ = network.unroll(params, trajectory.carry, trajectory.steps)
    policy = jax.tree.map(lambda x: x[:-1], policy)
    last = trajectory.steps.last[:-1]
    rows = {
        "rewards": trajectory.reward,
        "discounts": config.gamma * trajectory.discount,
        "last": last,
        "values": jax.lax.stop_gradient(values),
    }
    if config.n_step is None:
        advantages = returns.gae(**rows, lambda_=config.gae_lambda)
        targets = advantages + rows["values"][:-1]
    else:
        targets = returns.n_step(**rows, n=config.n_step)
        advantages = targets - rows["values"][:-1]

    entropies = policy.entropy()
    policy_losses = -policy.log_prob(trajectory.action) * advantages
    value_losses = 0.5 * jnp.square(targets - values[:-1])
    row_losses = policy_losses + config.value_cost * value_losses
    row_losses -= config.entropy_cost * entropies
    return losses.over_rows(row_losses, last, config.reduction), losses.row_means(
        last, policy_loss=policy_losses, value_loss=value_losses, entropy=entropies
    )
