"""TRPO as an agent."""

from functools import partial

import jax.numpy as jnp
import optax

from jaxrl_par.algorithms.trust_region.agent import stepping, weights
from jaxrl_par.algorithms.trust_region.config import TRPOConfig
from jaxrl_par.algorithms.trust_region.values import estimated
from jaxrl_par.axis import Axis
from jaxrl_par.networks import Network
from jaxrl_par.statistics import standardized
from jaxrl_par.types import Agent, Params, Trajectory


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
    prepared = partial(make_batch, critic=critic, config=config)
    return stepping(actor, critic, optimizer, config, TRPOConfig, prepared)


def make_batch(
    params: Params,
    trajectory: Trajectory,
    axis: Axis,
    critic: Network,
    config: TRPOConfig,
) -> Trajectory:
    """With A by GAE, and the loss of the values that it was estimated with."""
    last = trajectory.rows.last
    numbers = config.gamma, config.gae_lambda
    advantages = estimated(params["critic"], trajectory, critic, *numbers).advantages
    constants = {"told": {"value_loss": 0.5 * jnp.square(advantages)}}
    if config.normalize_advantages:
        advantages = standardized(advantages, ~last, axis)
    constants |= {"advantage": advantages, "weight": weights(last, advantages, axis)}
    return trajectory._replace(extras=trajectory.extras | constants)
