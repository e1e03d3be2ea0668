"""IMPALA: an actor-critic that corrects for the age of its data with V-trace.

Actors act with parameters that are some updates old, so their policy mu is not the
policy pi that learns. V-trace weighs each row by a truncated pi/mu. Without lag pi is
mu, and IMPALA is A2C with n-step returns to the end of the unroll.

The other corrections are those that the paper compares with V-trace.

Source: Espeholt et al., arXiv:1802.01561, section 4; ablation: section 5.2.2.
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
from jaxrl_par.errors import (
    ReadIf,
    above,
    at_least,
    below,
    not_between,
    not_chosen,
)
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
from jaxrl_par.types import Agent, Metrics, Params, Trajectory

METRICS = {
    "rho": Metric(
        "1",
        "mean of the clipped importance weights; far below 1, old data teach little",
    ),
    "rho_clipped": Metric("share of rows", "whose weight is above `max_rho`"),
}


@dataclass(frozen=True)
class ImpalaConfig:
    """Hyperparameters of IMPALA."""

    may_be_infinite: ClassVar[tuple[str, ...]] = (
        "max_rho",
        "max_c",
        "max_policy_rho",
        "max_abs_reward",
    )
    read_if: ClassVar[ReadIf] = {"epsilon": ("correction", ("epsilon",))}
    """What each of these fields is for: another one, and its values."""

    gamma: float = 0.99
    """Discount per environment step."""
    vtrace_lambda: float = 1.0
    """Decay of TD errors in a target: less bias towards 1, less noise towards 0."""
    max_rho: float = 1.0
    """Bar of pi/mu in TD errors: which policy's value is learned."""
    max_c: float = 1.0
    """Bar of pi/mu in traces: how far back an error reaches."""
    max_policy_rho: float = 1.0
    """Bar of pi/mu in the policy gradient."""
    correction: Literal["vtrace", "one_step", "epsilon", "none"] = "vtrace"
    """one_step: the policy gradient is weighed by pi/mu, values are not corrected.
    epsilon: nothing is weighed, but log(pi + epsilon) keeps the gradient bounded."""
    epsilon: float = 1e-6
    """Added to the probability by the correction `epsilon`."""
    value_cost: float = 0.5
    """Weight of half the squared value error, relative to the policy loss."""
    entropy_cost: float = 0.01
    """Weight of the entropy bonus, per nat."""
    behaviour_cost: float = 0.0
    """Weight of KL(mu || pi), per nat, which pulls the policy to the one that acted.
    With several passes over the same rows it is what ends them: V-trace's ratios stay
    near 1, and no pass makes the policy certain of what few rows said. In actor-learner
    distillation the learner does not leave its actor behind. Above 0 the acting policy
    is recorded in the extras."""
    reward_scale: float = 1.0
    """Factor of rewards before they are learned from. Reported returns do not have it,
    nor do they see the next."""
    max_abs_reward: float | None = None
    """Size to which scaled rewards are clipped; 1 for Atari."""
    reduction: Literal["mean", "sum"] = "mean"
    """How rows make a loss. The paper sums: gradients are then T * B times larger, for
    its RMSProp with a large epsilon a matter of the learning rate."""

    def problems(self) -> list[str]:
        found = not_between(self, gamma=(0, 1), vtrace_lambda=(0, 1)) + not_chosen(self)
        found += above(self, max_rho=0, max_c=0, max_policy_rho=0, reward_scale=0)
        found += above(self, max_abs_reward=0, epsilon=0) + below(self, epsilon=1)
        lowest = {"value_cost": 0, "behaviour_cost": 0, "max_rho": "max_c"}
        return found + at_least(self, **lowest)


def impala(
    network: Network,
    optimizer: optax.GradientTransformation,
    config: ImpalaConfig = ImpalaConfig(),
) -> Agent:
    """IMPALA for any actions, with or without memory, by the rules of `algorithms`."""
    accept(network, optimizer, config, ImpalaConfig)
    return trained_by(
        network,
        optimizer,
        partial(loss, network=network, config=config),
        record_log_prob=True,
        record_policy=losses.in_use(config.behaviour_cost),
        reduction=config.reduction,
    )


def loss(
    params: Params, trajectory: Trajectory, network: Network, config: ImpalaConfig
) -> tuple[Float[Array, ""], Metrics]:
    """Policy, value and entropy losses over the T * B rows.

    `trajectory.extras["log_prob"]` is log mu(a|o), [T, B], recorded when acting.

    Raises:
      ValueError: `behaviour_cost` is set, but the policy that acted was not recorded.
    """
    (policy, values), _ = network.unroll(params, trajectory.carry, trajectory.steps)
    policy = jax.tree.map(lambda x: x[:-1], policy)
    last = trajectory.steps.last[:-1]
    log_probs = policy.log_prob(trajectory.action)
    log_ratios = jax.lax.stop_gradient(log_probs) - trajectory.extras["log_prob"]
    # A `last` row's action is ignored, and its ratio could overflow.
    log_ratios = jnp.where(last, 0.0, log_ratios)
    targets, advantages, _ = _estimates(trajectory, log_ratios, values, config)
    if config.correction == "epsilon":
        log_probs = jnp.logaddexp(log_probs, jnp.log(config.epsilon))

    entropies = policy.entropy()
    policy_losses = -log_probs * advantages
    value_losses = 0.5 * jnp.square(targets - values[:-1])
    row_losses = policy_losses + config.value_cost * value_losses
    row_losses -= config.entropy_cost * entropies
    if losses.in_use(config.behaviour_cost):
        acted = losses.acting_policy(trajectory.extras)
        row_losses += config.behaviour_cost * acted.kl(policy)
    total = losses.over_rows(row_losses, last, config.reduction)
    ratios = jnp.exp(log_ratios)
    return total, losses.row_means(
        last,
        policy_loss=policy_losses,
        value_loss=value_losses,
        entropy=entropies,
        # Far below 1, old data no longer teach anything.
        rho=returns.ratios_up_to(config.max_rho, log_ratios),
        rho_clipped=(ratios > config.max_rho).astype(jnp.float32),
    )


def _estimates(
    trajectory: Trajectory,
    log_ratios: Float[Array, "T B"],
    values: Float[Array, "T+1 B"],
    config: ImpalaConfig,
) -> returns.VTrace:
    """Targets and advantages, corrected as the config says; no gradient flows here."""
    rewards = config.reward_scale * trajectory.reward
    if config.max_abs_reward is not None:
        rewards = jnp.clip(rewards, -config.max_abs_reward, config.max_abs_reward)
    corrected = config.correction == "vtrace"
    estimates = returns.vtrace(
        rewards=rewards,
        discounts=config.gamma * trajectory.discount,
        last=trajectory.steps.last[:-1],
        values=jax.lax.stop_gradient(values),
        log_ratios=log_ratios if corrected else jnp.zeros_like(log_ratios),
        lambda_=config.vtrace_lambda,
        max_rho=config.max_rho if corrected else 1.0,
        max_c=config.max_c if corrected else 1.0,
        max_policy_rho=config.max_policy_rho if corrected else 1.0,
    )
    if config.correction == "one_step":
        weights = returns.ratios_up_to(config.max_policy_rho, log_ratios)
        return estimates._replace(advantages=weights * estimates.advantages)
    return estimates
