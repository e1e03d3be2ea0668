"""Priorities: how often a window is drawn, and what makes up for it in the loss.

    P(i) = p(i)^alpha / sum of p^alpha     p(i) = |delta(i)| + eps, or 1 / rank(i)
    w(i) = (N P(i))^-beta / max of w       the largest in the joint batch

The loss of a batch is the mean over its K windows of w(i) times their losses. It is not
divided by the sum of weights, which would undo beta.

Source: Schaul et al., arXiv:1511.05952, equation 1 and section 3.4.
"""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.errors import at_least, not_between, not_chosen
from jaxrl_par.types import Count


@dataclass(frozen=True)
class PriorityConfig:
    """How errors become probabilities."""

    kind: Literal["proportional", "rank"] = "proportional"
    """To the error, or to 1 / its rank: 1 for the largest, and among equals for the one
    in the earlier slot. Ranks are made anew whenever unrolls are added, which sorts all
    windows."""
    alpha: float = 0.6
    """0 draws uniformly."""
    beta: float = 0.4
    """Exponent of importance weights at the start; 1 makes up for all of P."""
    beta_updates: int | None = None
    """Updates over which beta rises to 1, linearly. None: it stays."""
    eps: float = 1e-6
    """Added to each error before the power, so that none is never drawn again."""
    first: Literal["maximal", "recorded"] = "maximal"
    """What newcomers have. maximal: the largest that was ever given, at least 1; it
    does not fall when its window leaves. recorded: those of `extras["priority"]`, which
    whoever acted has computed for each row."""
    eta: float = 0.9
    """Share of the maximum, and 1 - eta of the mean, where a window of several rows has
    one priority. Source: Kapturowski et al., R2D2 (ICLR 2019), section 2.3."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_between(self, beta=(0, 1), eta=(0, 1)) + not_chosen(self)
        return found + at_least(self, alpha=0, eps=0, beta_updates=1)


def mass(priority: Float[Array, "*K"], config: PriorityConfig) -> Float[Array, "*K"]:
    """(p + eps)^alpha."""
    return (priority + config.eps) ** jnp.float32(config.alpha)


def rank_masses(priorities: Float[Array, " N"], alpha: float) -> Float[Array, " N"]:
    """rank^-alpha, 0 where there is no priority."""
    order = jnp.argsort(-priorities, stable=True)
    rank = (
        jnp.zeros(priorities.size, jnp.int32)
        .at[order]
        .set(jnp.arange(1, priorities.size + 1, dtype=jnp.int32), unique_indices=True)
    )
    masses = rank.astype(jnp.float32) ** jnp.float32(-alpha)
    return jnp.where(priorities < 0.0, 0.0, masses)


def beta_after(updates: Count, config: PriorityConfig) -> Float[Array, ""]:
    """The exponent of importance weights after so many updates."""
    if config.beta_updates is None:
        return jnp.float32(config.beta)
    millions, units = (jnp.asarray(x, jnp.float32) for x in updates)
    done = jnp.minimum((millions * 1e6 + units) / config.beta_updates, 1.0)
    return config.beta + (1.0 - config.beta) * done
