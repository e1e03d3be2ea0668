"""Q-Prop's policy: TRPO, whose advantages are rid of what a critic explains of them.

A critic that was learned from replay has in each state a slope in the action, at the
policy's mean mu. The policy gradient of what that explains is known without a sample:

    B      = dQ/da (a - mu)                          control variate, whose mean is 0
    grad J = E[grad log pi (A - eta B)] + E[eta dQ/da grad mu]

It has the same mean whatever the critic is, as long as eta and the slope do not depend
on a. The better the critic, the less the variance. So the critic is one that has not
seen these actions yet: see `loops.judged`.

Where advantages are normalised, A - eta B is, and the second term is divided by the
same deviation. mu is the mean of a normal distribution, in units of the environment.

Source: Gu et al., arXiv:1611.02247, equations 6 to 12 and section 3.3.
"""

from functools import partial

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jaxrl_par.algorithms.trust_region.agent import stepping, weights
from jaxrl_par.algorithms.trust_region.config import QPropConfig
from jaxrl_par.algorithms.trust_region.values import actors_memory, estimated
from jaxrl_par.axis import Axis
from jaxrl_par.distributions import DiagNormal
from jaxrl_par.errors import RefusedError
from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
from jaxrl_par.statistics import moments
from jaxrl_par.types import Agent, Box, Params, Trajectory

METRICS = {
    "eta": Metric("1", "weight of the control variate"),
    "advantage_square": Metric("squared returns", "mean square of advantages"),
    "left_square": Metric("squared returns", "of what the critic does not explain"),
}

SLOPE = "slope"
"""The extra of a trajectory with dQ/da at mu, [T, B, A]."""
_TINY = 1e-30


def q_prop(
    actor: Network,
    critic: Network,
    optimizer: optax.GradientTransformation,
    config: QPropConfig = QPropConfig(),
) -> Agent:
    """Q-Prop's policy, to be learned by `loops.judged`, which gives it slopes.

    Args:
      actor, critic, optimizer: as for `trpo`. The actor's policies are normal
        distributions, not squashed.

    Raises:
      RefusedError: an argument is something else or out of range; as `separate`; or,
        when learning, policies are others.
    """
    if actor.specs is not None and not isinstance(actor.specs[1], Box):
        raise RefusedError(
            "q_prop needs the slope of a value in the action, so actions must be real"
            f" numbers, got {actor.specs[1]!r}: take trpo"
        )
    prepared = partial(make_batch, actor=actor, critic=critic, config=config)
    return stepping(actor, critic, optimizer, config, QPropConfig, prepared)


def make_batch(
    params: Params,
    trajectory: Trajectory,
    axis: Axis,
    actor: Network,
    critic: Network,
    config: QPropConfig,
) -> Trajectory:
    """With A - eta B in place of A, and eta dQ/da as `control`.

    Raises:
      RefusedError: the policies are no normal distributions.
    """
    last = trajectory.rows.last
    numbers = config.gamma, config.gae_lambda
    advantages = estimated(params["critic"], trajectory, critic, *numbers).advantages
    memory = actors_memory(trajectory)
    (policy, _), _ = actor.unroll(params["actor"], memory, trajectory.rows)
    if not isinstance(policy, DiagNormal):
        raise RefusedError(
            "q_prop needs policies that are normal distributions, whose mean is that of"
            f" the actions, got {type(policy).__name__}: take network.policy = gaussian"
        )
    slopes = trajectory.extras[SLOPE]
    control = jnp.sum(slopes * (trajectory.action - policy.mean), axis=-1)
    eta = weight_of(advantages, control, last, config, axis)
    left, slopes = advantages - eta * control, eta[..., None] * slopes
    told = {"value_loss": 0.5 * jnp.square(advantages), "eta": eta}
    told |= {
        "advantage_square": jnp.square(advantages),
        "left_square": jnp.square(left),
    }
    _, mean, variance = moments(left, ~last, axis)
    if config.normalize_advantages:
        size = jnp.sqrt(variance + 1e-8)
        left, slopes = (left - mean) / size, slopes / size
    constants = {"told": told, "advantage": jnp.where(last, 0.0, left)}
    constants |= {"control": slopes, "weight": weights(last, left, axis)}
    return trajectory._replace(extras=trajectory.extras | constants)


def weight_of(
    advantages: Float[Array, "T B"],
    control: Float[Array, "T B"],
    last: Bool[Array, "T B"],
    config: QPropConfig,
    axis: Axis,
) -> Float[Array, "T B"]:
    """eta of each row. The control variate's mean is 0, and advantages are taken from
    theirs, over the joint batch."""
    ones = jnp.ones_like(advantages)
    if config.variant == "one":
        return ones
    _, mean, _ = moments(advantages, ~last, axis)
    products = jnp.where(last, 0.0, (advantages - mean) * control)
    if config.variant == "adaptive" or config.covariance == "batch":
        squares = jnp.where(last, 0.0, jnp.square(control))
        both = axis.after((jnp.sum(products), jnp.sum(squares)), mean)
        products, square = axis.mean(both)
        if config.variant == "adaptive":
            return products / jnp.maximum(square, _TINY) * ones
    if config.variant == "conservative":
        return jnp.where(products > 0.0, ones, 0.0)
    return jnp.sign(products) * ones
