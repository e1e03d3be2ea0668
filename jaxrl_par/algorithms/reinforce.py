"""Sample-parallel policy gradient (REINFORCE): a sum over all environments.

    each env i:  run pi, get tau_i;   grad_i = sum_t grad log pi(a[t]|o[t]) (R_i[t] - b)
    barrier;   theta <- theta + alpha sum_i grad_i

R is the return of the whole episode, or what is left of it at t. Any b that does not
depend on the action leaves the expectation unchanged and is there to lower the
variance. Use with `compiled.episodic`, since these returns need episodes to their end.

Sources: Williams, Machine Learning 8 (1992); Sutton and Barto, 2nd edition, section
13.4 (baseline); Levine, Asynchronous and parallel algorithms, lecture at Berkeley
(the sum; its workers are environments here).
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxrl_par import losses, returns
from jaxrl_par.agents import accept, trained_by
from jaxrl_par.axis import Axis
from jaxrl_par.errors import ReadIf, at_least, not_between, not_chosen
from jaxrl_par.networks import Network
from jaxrl_par.types import Agent, Metrics, Params, Trajectory


@dataclass(frozen=True)
class ReinforceConfig:
    """Hyperparameters of REINFORCE."""

    read_if: ClassVar[ReadIf] = {"value_cost": ("baseline", ("learned",))}
    """What each of these fields is for: another one, and its values."""

    gamma: float = 0.99
    """Discount per environment step."""
    baseline: Literal["none", "mean", "leave_one_out", "learned"] = "mean"
    """mean: of all returns on all devices, the lecture's constant, which shrinks the
    expected gradient by 1/N because each episode's own return is in it. leave_one_out:
    of the other episodes of its device, unbiased. learned: a value network."""
    returns: Literal["to_go", "whole"] = "to_go"
    """What weighs an action: rewards from there on, or also those before it, as in the
    lecture; that has the same expectation for gamma = 1 and a larger variance."""
    value_cost: float = 0.5
    """Weight of the learned baseline's half squared error."""
    entropy_cost: float = 0.0
    """Weight of the entropy bonus, per nat."""
    reduction: Literal["sum", "mean"] = "sum"
    """Over environments: the lecture's sum, or the mean. Within an episode it is always
    a sum over steps."""

    def problems(self) -> list[str]:
        found = not_between(self, gamma=(0, 1)) + not_chosen(self)
        return found + at_least(self, value_cost=0)


class ReinforceBatch(NamedTuple):
    """Whole episodes with their returns."""

    trajectory: Trajectory
    returns: Float[Array, "T B"]
    """0 where `last`."""
    baseline: Float[Array, "T B"]
    """0 where it is learned, and then comes from the network."""


def reinforce(
    network: Network,
    optimizer: optax.GradientTransformation,
    config: ReinforceConfig = ReinforceConfig(),
) -> Agent:
    """REINFORCE for any actions, with or without memory, by the rules of `algorithms`.

    Args:
      network: maps steps to (distribution of the action, values [...]). The values are
        not used unless the baseline is learned.
    """
    accept(network, optimizer, config, ReinforceConfig)
    return trained_by(
        network,
        optimizer,
        partial(loss, network=network, config=config),
        # These returns need no values, and so no state.
        prepare=lambda state, trajectory, axis: make_batch(trajectory, config, axis),
        reduction=config.reduction,
    )


def make_batch(
    trajectory: Trajectory, config: ReinforceConfig, axis: Axis
) -> ReinforceBatch:
    """Returns of whole episodes, and the baselines that need all environments."""
    last = trajectory.steps.last[:-1]
    to_go = returns.gae(
        rewards=trajectory.reward,
        discounts=config.gamma * trajectory.discount,
        last=last,
        # With a value of 0 everywhere, TD errors are rewards.
        values=jnp.zeros_like(trajectory.steps.last, trajectory.reward.dtype),
        lambda_=1.0,
    )
    if config.returns == "whole":
        to_go = jnp.broadcast_to(to_go[0], to_go.shape)
    to_go = jnp.where(last, 0.0, to_go)
    return ReinforceBatch(trajectory, to_go, _baseline(to_go, last, config, axis))


def _baseline(to_go, last, config: ReinforceConfig, axis: Axis):
    weight = jnp.where(last, 0.0, 1.0)
    if config.baseline == "mean":
        # One number: the mean over all rows; over episodes where each has one return.
        if config.returns == "whole":
            constant = axis.mean(jnp.mean(to_go[0]))
        else:
            count = axis.mean(jnp.sum(weight))
            # Without a row that counts, the sum is 0, and so is the mean.
            tiny = jnp.finfo(count.dtype).tiny
            constant = axis.mean(jnp.sum(to_go)) / jnp.maximum(count, tiny)
        return constant * weight
    if config.baseline == "leave_one_out":
        # At each step over the others still running; a single one has no baseline.
        others = jnp.sum(weight, axis=1, keepdims=True) - weight
        total = jnp.sum(to_go, axis=1, keepdims=True) - to_go
        return weight * total / jnp.maximum(others, 1.0)
    return jnp.zeros_like(to_go)


def loss(
    params: Params, batch: ReinforceBatch, network: Network, config: ReinforceConfig
) -> tuple[Float[Array, ""], Metrics]:
    """The policy gradient's surrogate, summed over steps, reduced over environments."""
    trajectory = batch.trajectory
    (policy, values), _ = network.unroll(params, trajectory.carry, trajectory.steps)
    policy, values = jax.tree.map(lambda x: x[:-1], (policy, values))
    last = trajectory.steps.last[:-1]
    baseline = batch.baseline
    if config.baseline == "learned":
        baseline = jax.lax.stop_gradient(values)
    advantages = batch.returns - baseline
    policy_losses = -policy.log_prob(trajectory.action) * advantages
    value_losses = 0.5 * jnp.square(batch.returns - values)
    entropies = policy.entropy()
    total = policy_losses - config.entropy_cost * entropies
    metrics = losses.row_means(last, policy_loss=policy_losses, entropy=entropies)
    if config.baseline == "learned":
        total = total + config.value_cost * value_losses
        metrics["value_loss"] = losses.row_mean(value_losses, last)
    total = losses.over_rows(total, last, "sum")
    if config.reduction == "mean":
        total = total / last.shape[1]
    return total, metrics
