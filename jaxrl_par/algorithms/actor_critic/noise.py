"""How actions of a deterministic policy differ from the policy's: noise by environment.

What noise has to remember is in the carry of its environment: it goes on while that is
acted in and begins again with an episode of its own, and nothing else moves it.

Source of the process: Lillicrap et al., arXiv:1509.02971, section 7 (after Uhlenbeck
and Ornstein, 1930).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_par import exploration
from jaxrl_par.algorithms.actor_critic.config import NoiseConfig
from jaxrl_par.types import PRNGKey


class NoiseCarry(NamedTuple):
    """What an environment's actions depend on besides what it shows."""

    std: Float[Array, " B"]
    """Of what is drawn, in units of the bounds. It never changes."""
    process: Any = ()
    """[B, A], where there is one: the noise of the action before."""


def quiet(config: NoiseConfig, num_envs: int, num_actions: int) -> NoiseCarry:
    """Before the first action of so many environments."""
    process = ()
    if config.exploration == "process":
        process = jnp.zeros((num_envs, num_actions), jnp.float32)
    if config.exploration == "ladder":
        steps = config.ladder_base, config.ladder_exponent
        return NoiseCarry(exploration.geometric_ladder(num_envs, *steps), process)
    return NoiseCarry(jnp.full(num_envs, config.noise, jnp.float32), process)


def drawn(
    config: NoiseConfig,
    carry: NoiseCarry,
    first: Bool[Array, " B"],
    key: PRNGKey,
    shape: tuple[int, int],
) -> tuple[Float[Array, "B A"], NoiseCarry]:
    """The noise of the next actions, and the carry after them.

    A process is x' = x - reversion x + std z, from 0 where an episode begins: in steps
    of 1 its deviation comes to std / sqrt(1 - (1 - reversion)^2).
    """
    noise = carry.std[:, None] * jax.random.normal(key, shape, jnp.float32)
    if config.exploration != "process":
        return noise, carry
    before = jnp.where(first[:, None], 0.0, carry.process)
    noise = before - config.reversion * before + noise
    return noise, carry._replace(process=noise)
