"""The global policy: a network that learns what all controllers would do.

Its gradient is that of

    mean over rows of  weight (mu(o) - mean)^T precision (mu(o) - mean) / 2

where the precision is the inverse of the controller's covariance: an error in a
direction in which the controller itself acts at random matters little, one in which it
is certain much. Precisions are divided by their mean over the batch, so that the rate
of learning keeps its meaning while controllers become certain.

The covariance of its actions has a closed form, (mean of all precisions)^-1.

Source: Levine et al., arXiv:1504.00702, section 4.3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxrl_par.agents import gradient, stepped
from jaxrl_par.algorithms.gps.matrices import LARGEST, definite
from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError, lacking, refuse_any
from jaxrl_par.guidance import GlobalPolicy, Lessons
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
from jaxrl_par.types import (
    Agent,
    Box,
    Carry,
    Grads,
    Info,
    Metrics,
    Params,
    PRNGKey,
    TimeStep,
)

METRICS = {
    "imitation_loss": Metric(
        "nats", "of the policy from the controllers, weighted by their precision"
    ),
}

_LOWEST_PRECISION = 1e-6


class PolicyState(NamedTuple):
    """What is learned."""

    params: Params
    opt_state: optax.OptState
    covariance: Float[Array, "A A"]


def global_policy(
    network: Network, optimizer: optax.GradientTransformation, initial_std: float = 1.0
) -> Agent:
    """An agent that learns from `Lessons`, not from trajectories.

    Args:
      network: maps steps to (distribution of the action, anything). It learns to have
        the right mode.
      initial_std: of its actions before the first lessons.

    Raises:
      RefusedError: actions are no short vector of real numbers, or there is memory.
    """
    parts = ("init", "initial_carry", "apply", "unroll")
    refuse_any(lacking("a Network, as networks make", *parts, network=network))
    number = _num_actions(network)

    def init(key: PRNGKey, step: TimeStep) -> PolicyState:
        params = network.init(key, step)
        covariance = initial_std**2 * jnp.eye(number)
        return PolicyState(params, optimizer.init(params), covariance)

    def loss(params: Params, batch: Lessons) -> tuple[Float[Array, ""], Metrics]:
        (policy, _), _ = network.apply(params, (), seen(batch.obs, batch.weight.shape))
        error = policy.mode() - batch.mean
        squares = jnp.einsum("ma,mab,mb->m", error, batch.precision, error)
        value = 0.5 * jnp.mean(batch.weight * squares)
        return value, {"imitation_loss": value}

    def grad(
        state: PolicyState, batch: Lessons, key: PRNGKey, axis: Axis
    ) -> tuple[Grads, Info]:
        del key  # the loss is deterministic
        return gradient(loss, state.params, scaled(batch, axis))

    def apply(state: PolicyState, grads: Grads, metrics: Metrics) -> PolicyState:
        del metrics  # the optimizer needs none
        after = stepped(optimizer, state.params, state.opt_state, grads)
        return PolicyState(*after, state.covariance)

    def observe(state: PolicyState, lessons: Lessons, axis: Axis) -> PolicyState:
        return state._replace(covariance=joint_covariance(lessons.precision, axis))

    def act(params: GlobalPolicy, carry: Carry, step: TimeStep, key: PRNGKey):
        mean, carry, extras = greedy(params, carry, step, key)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return mean + noise @ definite(params.covariance).factor.T, carry, extras

    def greedy(params: GlobalPolicy, carry: Carry, step: TimeStep, key: PRNGKey):
        del key  # the mean needs none
        (policy, _), carry = network.apply(params.params, carry, step)
        return policy.mode(), carry, {}

    return Agent(
        *(init, network.initial_carry, act, grad, apply, greedy),
        observe=observe,  # pyright: ignore[reportArgumentType]
        params=lambda state: GlobalPolicy(state.params, state.covariance),
        specs=network.specs,
    )


def seen(obs, shape: tuple[int, ...]) -> TimeStep:
    """Observations [M, ...] as steps, of which none begins or ends an episode."""
    no = jnp.zeros(shape, bool)
    return TimeStep(obs, no, no)


def scaled(lessons: Lessons, axis: Axis) -> Lessons:
    """Rows whose precisions, times their weights, have a mean trace of A."""
    traces = jnp.trace(lessons.precision, axis1=-2, axis2=-1)
    mean = axis.mean(jnp.mean(traces * lessons.weight)) / lessons.mean.shape[-1]
    return lessons._replace(weight=lessons.weight / mean)


def joint_covariance(
    precision: Float[Array, "*J A A"], axis: Axis
) -> Float[Array, "A A"]:
    """The covariance that is nearest to all, in the divergence from it to them."""
    size = precision.shape[-1]
    mean = axis.mean(jnp.mean(precision.reshape(-1, size, size), axis=0))
    return definite(mean + _LOWEST_PRECISION * jnp.eye(size)).inverse()


def _num_actions(network: Network) -> int:
    spec = None if network.specs is None else network.specs[1]
    if not isinstance(spec, Box) or len(spec.shape) != 1 or spec.shape[0] > LARGEST:
        raise RefusedError(
            f"guided policy search needs actions of 1 to {LARGEST} real numbers, got"
            f" {spec}: for others, take ppo or dqn"
        )
    if jax.tree.leaves(network.initial_carry(1)):
        raise RefusedError(
            "guided policy search teaches single observations, and the network has"
            " memory: take network.memory = none"
        )
    return spec.shape[0]
