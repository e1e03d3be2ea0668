"""Gradients whose loss is far above those before: refused, as by Gorila.

    refused if  loss > mean + num_deviations * std

over all losses that the worker has seen before, once there were enough. Each worker
keeps these statistics of its own gradients, as part of its data: so they are saved and
resumed with it, and a recorded run has them again. The deviation is the population's.

A loss that was refused enters the statistics as every other. Left out, losses that stay
on a higher level would be refused for ever; so it goes on once they are usual. One that
is not finite never enters, and makes its gradient not finite, which is skipped: no
number is larger than NaN, nor smaller.

Source: Nair et al., arXiv:1507.04296, section 4.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.errors import ReadIf, RefusedError, above, at_least, below, not_chosen
from jaxrl_par.loops.learner import Data, Gradient, Learner, halves_of
from jaxrl_par.statistics import Moments, merged
from jaxrl_par.types import Mean, Metrics, PRNGKey, State, Trajectory

LOSS = "value_loss"
"""The metric that is judged. It is not weighted, and never negative."""


@dataclass(frozen=True)
class OutlierConfig:
    """What becomes of a gradient whose loss is far above those before."""

    read_if: ClassVar[ReadIf] = {
        "num_deviations": ("rule", ("reject",)),
        "warm_up": ("rule", ("reject",)),
    }
    """What each of these fields is for: another one, and its values."""

    rule: Literal["accept", "reject"] = "accept"
    """accept: nothing. reject: it is discarded, as by Gorila."""
    num_deviations: float = 5.0
    """Standard deviations above the mean, up to which reject applies a gradient."""
    warm_up: int = 100
    """Losses of a worker before it rejects any."""

    def problems(self) -> list[str]:
        found = not_chosen(self) + at_least(self, warm_up=1)
        found += above(self, num_deviations=0)
        return found + below(self, num_deviations=float("inf"))


Losses = Moments | tuple[()]
"""Scalars, of all losses that a worker has seen; nothing under accept. The count is a
float32, which stays at 2**24: from then on the oldest losses are forgotten."""


class Judged(NamedTuple):
    """A worker's data, and what its losses were."""

    losses: Losses
    data: Data
    """The learner's."""


def start(config: OutlierConfig) -> Losses:
    """No losses yet."""
    if config.rule == "accept":
        return ()
    zero = jnp.float32(0)
    return Moments(zero, zero, zero)


def judged(
    losses: Losses, given: Gradient, config: OutlierConfig
) -> tuple[Losses, Gradient]:
    """The statistics with one more loss, and the gradient, refused if it is outlying.

    Nothing is judged before a buffer is ready, and of a batch without transitions.

    Raises:
      RefusedError: there is no such metric.
    """
    if config.rule == "accept":
        return losses, given
    assert isinstance(losses, Moments)
    loss, is_loss = _loss(given.metrics)
    is_loss &= jnp.asarray(given.accepted)
    bound = losses.mean + config.num_deviations * jnp.sqrt(losses.variance)
    is_finite = jnp.isfinite(loss)
    is_warm = losses.count >= config.warm_up
    outlying = is_loss & is_finite & is_warm & (loss > bound)
    spoiled = is_loss & ~is_finite
    grads = jax.tree.map(lambda x: jnp.where(spoiled, jnp.nan, x), given.grads)
    after = merged(losses, Moments(jnp.float32(1), loss, jnp.float32(0)))
    # A loss may be finite, and its square not: then nothing would be refused any more.
    enters = is_loss & is_finite & jnp.isfinite(after.variance)
    losses = jax.tree.map(lambda x, y: jnp.where(enters, x, y), after, losses)
    return losses, given._replace(grads=grads, outlying=outlying)


def rejecting(learner: Learner, config: OutlierConfig, topology: str) -> Learner:
    """The learner, for workers: its halves also judge each gradient. Nothing changes
    under accept.

    Raises:
      RefusedError: the learner has no halves.
    """
    halves = halves_of(learner, topology)
    if config.rule == "accept":
        return learner

    def contribute(state: State, data: Judged, trajectory: Trajectory, key: PRNGKey):
        own, given = halves.contribute(state, data.data, trajectory, key)
        losses, given = judged(data.losses, given, config)
        return Judged(losses, own), given

    return learner._replace(
        start=lambda shapes: Judged(start(config), learner.start(shapes)),
        halves=halves._replace(contribute=contribute),
    )


def _loss(metrics: Metrics) -> tuple[Float[Array, ""], Any]:
    """The loss, and whether there were rows for it to be of."""
    if LOSS not in metrics:
        raise RefusedError(
            f"outliers are told by the metric {LOSS}, and this agent reports only"
            f" {', '.join(sorted(metrics)) or 'none'}: take rule accept"
        )
    loss: Any = metrics[LOSS]
    if not isinstance(loss, Mean):
        return jnp.float32(loss), jnp.bool_(True)
    return loss.total / jnp.maximum(loss.count, 1.0), loss.count > 0
