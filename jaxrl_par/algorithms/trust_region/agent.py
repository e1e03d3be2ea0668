"""An agent whose gradients are steps within a trust region, and its values."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jaxrl_par import losses
from jaxrl_par.agents import accept, acting, plainly, preferring
from jaxrl_par.algorithms.trust_region.config import TRPOConfig
from jaxrl_par.algorithms.trust_region.values import (
    actors_memory,
    estimated,
    fitted,
)
from jaxrl_par.axis import Axis
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network, separate
from jaxrl_par.statistics import SMALLEST_COUNT
from jaxrl_par.trust_region import Region, step_within
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

METRICS = {
    "values_skipped": Metric(
        "steps", "of the latest fit of values, not made as they were not finite"
    ),
}


class TRPOState(NamedTuple):
    """What TRPO learns."""

    params: Params
    """{"actor", "critic"}"""
    opt_state: optax.OptState
    """Of the critic: the actor has no optimizer."""
    values_skipped: Float[Array, ""]
    """Steps of the latest fit that were not finite, and not made."""


Prepare = Callable[[Params, Trajectory, Axis], Trajectory]
"""What makes a batch of what was acted, by the parameters before a step. Its extras
have, [T, B] if nothing else is said:

    advantage    A
    weight       that of `weights`
    log_prob     log mu(a|o), recorded when acting
    told         numbers by name, whose means are metrics
    control      of a control variate its slope in the mean, [T, B, A]; or there is none
"""


def stepping(
    actor: Network,
    critic: Network,
    optimizer: optax.GradientTransformation,
    config: TRPOConfig,
    kind: type,
    prepared: Prepare,
) -> Agent:
    """The agent. Arguments and errors are those of `trpo`.

    Args:
      kind: the config's.
      prepared: makes the batch that a step is searched with.
    """
    network = separate(actor, critic)
    accept(network, optimizer, config, kind)

    def init(key: PRNGKey, step: TimeStep) -> TRPOState:
        params = network.init(key, step)
        return TRPOState(params, optimizer.init(params["critic"]), jnp.float32(0))

    def prepare(state: TRPOState, trajectory: Trajectory, axis: Axis) -> Trajectory:
        return prepared(state.params, trajectory, axis)

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
        plain=plainly(network, act, log_prob=True),
    )


def searched(
    params: Params,
    batch: Trajectory,
    actor: Network,
    config: TRPOConfig,
    axis: Axis,
) -> tuple[Params, Metrics]:
    """The step of the actor's parameters, and metrics of it and of the batch."""
    carry = actors_memory(batch)

    def policies(params: Params) -> Any:
        return actor.unroll(params, carry, batch.rows)[0][0]

    region = Region(policies, partial(gain, batch), partial(divergence, batch))
    found = step_within(region, params["actor"], config, axis)
    last = batch.rows.last
    entropies = policies(params["actor"]).entropy()
    rows = losses.row_means(last, entropy=entropies, **batch.extras["told"])
    # What is averaged next must not meet what the search averages.
    return found.step, found.metrics | axis.after(rows, found.metrics)


def gain(batch: Trajectory, policy: Any) -> Float[Array, ""]:
    """This instance's share of the mean of pi / mu A, and of control variates."""
    constants = batch.extras
    log_ratios = policy.log_prob(batch.action) - constants["log_prob"]
    # A `last` row's ratio is one of an action that was ignored, and may overflow.
    ratios = jnp.exp(jnp.where(batch.rows.last, 0.0, log_ratios))
    gains = ratios * constants["advantage"]
    if "control" in constants:
        gains += jnp.sum(constants["control"] * policy.mean, axis=-1)
    return jnp.sum(constants["weight"] * gains)


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
