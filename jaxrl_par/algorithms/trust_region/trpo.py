"""TRPO as an agent."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jaxrl_par import losses
from jaxrl_par.agents import accept, acting, preferring
from jaxrl_par.algorithms.trust_region.values import estimated, fitted
from jaxrl_par.axis import Axis
from jaxrl_par.errors import at_least, at_most, not_between
from jaxrl_par.networks import Network, separate
from jaxrl_par.statistics import SMALLEST_COUNT, standardized
from jaxrl_par.trust_region import Region, TrustRegionConfig, step_within
from jaxrl_par.types import (
    Agent,
    Grads,
    Info,
    Metrics,
    Params,
    PRNGKey,
    TimeStep,
    Trajectory,
)


@dataclass(frozen=True)
class TRPOConfig(TrustRegionConfig):
    """Hyperparameters of TRPO."""

    gamma: float = 0.99
    """Discount per environment step."""
    gae_lambda: float = 0.97
    """Decay of TD errors in an advantage: less bias towards 1, less noise towards 0."""
    normalize_advantages: bool = True
    """To mean 0 and standard deviation 1 over the joint batch."""
    value_steps: int = 40
    """Steps of the value function's optimizer after each of the policy, each on all
    rows."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = super().problems() + not_between(self, gamma=(0, 1), gae_lambda=(0, 1))
        found += at_least(self, value_steps=1)
        return found + at_most(self, value_steps=10**6)


class TRPOState(NamedTuple):
    """What TRPO learns."""

    params: Params
    """{"actor", "critic"}"""
    opt_state: optax.OptState
    """Of the critic: the actor has no optimizer."""
    values_skipped: Float[Array, ""]
    """Steps of the latest fit that were not finite, and not made."""


def trpo(
    actor: Network,
    critic: Network,
    optimizer: optax.GradientTransformation,
    config: TRPOConfig = TRPOConfig(),
) -> Agent:
    """TRPO for any actions, with or without memory. It has the parameters of
    `networks.separate(actor, critic)`.

    Args:
      actor: maps steps to (distribution of the action, anything), critic: to (anything,
        values [...]). A step moves all of the actor's parameters, and they share none.
      optimizer: of the critic's gradients alone.

    Raises:
      RefusedError: an argument is something else or out of range; as `separate`.
    """
    network = separate(actor, critic)
    accept(network, optimizer, config, TRPOConfig)

    def init(key: PRNGKey, step: TimeStep) -> TRPOState:
        params = network.init(key, step)
        return TRPOState(params, optimizer.init(params["critic"]), jnp.float32(0))

    def prepare(state: TRPOState, trajectory: Trajectory, axis: Axis) -> Trajectory:
        return make_batch(state.params, trajectory, critic, config, axis)

    def grad(
        state: TRPOState, batch: Trajectory, key: PRNGKey, axis: Axis
    ) -> tuple[Grads, Info]:
        del key  # the search is deterministic
        step, metrics = searched(state.params, batch, actor, config, axis)
        metrics["values_skipped"] = state.values_skipped
        return step, Info(metrics)

    def apply(state: TRPOState, grads: Grads, metrics: Metrics) -> TRPOState:
        del metrics  # a step is what it is
        moved = jax.tree.map(jnp.add, state.params["actor"], grads)
        return state._replace(params=state.params | {"actor": moved})

    def observe(state: TRPOState, trajectory: Trajectory, axis: Axis) -> TRPOState:
        values = state.params["critic"]
        numbers = config.gamma, config.gae_lambda
        targets = estimated(values, trajectory, critic, *numbers).targets
        given = values, state.opt_state, trajectory, targets, config.value_steps
        fit = fitted(critic, optimizer, *given, axis)
        params = state.params | {"critic": fit.params}
        return TRPOState(params, fit.opt_state, fit.skipped)

    act, greedy = acting(network, record_log_prob=True)
    functions = (init, network.initial_carry, act, grad, apply, greedy)
    return Agent(
        *functions,
        prepare=prepare,
        observe=observe,
        reduction="joint",
        specs=network.specs,
        preferences=preferring(network, lambda outputs: outputs[0].logits),
    )


def make_batch(
    params: Params,
    trajectory: Trajectory,
    critic: Network,
    config: TRPOConfig,
    axis: Axis,
) -> Trajectory:
    """The trajectory, with what is constant in a search in its extras:

        advantage    A, [T, B], 0 where `last`
        weight       of each row in a mean over those that are no `last`, [T, B]
        value_loss   of the values that A was estimated with, [T, B]

    `trajectory.extras["log_prob"]` is log mu(a|o), [T, B], recorded when acting.
    """
    last = trajectory.rows.last
    numbers = config.gamma, config.gae_lambda
    advantages = estimated(params["critic"], trajectory, critic, *numbers).advantages
    constants = {"value_loss": 0.5 * jnp.square(advantages)}
    if config.normalize_advantages:
        advantages = standardized(advantages, ~last, axis)
    constants |= {"advantage": advantages, "weight": weights(last, advantages, axis)}
    return trajectory._replace(extras=trajectory.extras | constants)


def searched(
    params: Params,
    batch: Trajectory,
    actor: Network,
    config: TRPOConfig,
    axis: Axis,
) -> tuple[Params, Metrics]:
    """The step of the actor's parameters, and metrics of it and of the batch."""
    carry = batch.carry[0] if batch.carry else ()

    def policies(params: Params) -> Any:
        return actor.unroll(params, carry, batch.rows)[0][0]

    region = Region(policies, partial(gain, batch), partial(divergence, batch))
    found = step_within(region, params["actor"], config, axis)
    last = batch.rows.last
    entropies = policies(params["actor"]).entropy()
    rows = losses.row_means(
        last, entropy=entropies, value_loss=batch.extras["value_loss"]
    )
    # What is averaged next must not meet what the search averages.
    return found.step, found.metrics | axis.after(rows, found.metrics)


def gain(batch: Trajectory, policy: Any) -> Float[Array, ""]:
    """This instance's share of the mean of pi / mu A."""
    weight, constants = batch.extras["weight"], batch.extras
    log_ratios = policy.log_prob(batch.action) - constants["log_prob"]
    # A `last` row's ratio is one of an action that was ignored, and may overflow.
    ratios = jnp.exp(jnp.where(batch.rows.last, 0.0, log_ratios))
    return jnp.sum(weight * ratios * constants["advantage"])


def divergence(batch: Trajectory, old: Any, new: Any) -> Float[Array, ""]:
    """This instance's share of the mean of KL(old || new)."""
    rows = jnp.where(batch.rows.last, 0.0, old.kl(new))
    return jnp.sum(batch.extras["weight"] * rows)


def weights(last: Bool[Array, "T B"], done: Any, axis: Axis) -> Float[Array, "T B"]:
    """Of rows whose weighted sum, averaged over the axis, is the mean over all rows of
    the joint batch that are no `last`.

    Args:
      done: as for `Axis.after`.
    """
    kept = jnp.where(last, 0.0, 1.0)
    count = axis.mean(axis.after(jnp.sum(kept), done))
    return kept / jnp.maximum(count, SMALLEST_COUNT)
