"""Distributions over actions, as pytrees with methods.

Leaves are [*B, A] (A actions or action dimensions); actions are [*B] for `Categorical`
and [*B, A] otherwise; probabilities and entropies are [*B], in nats. Being pytrees,
they can be sliced, stacked and returned from compiled functions.
"""

from itertools import accumulate
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrl_par.types import Action, PRNGKey

_LOG_2PI = float(np.log(2.0 * np.pi))
_LIMIT = 1.0 - 1e-6  # of what tanh gives


@runtime_checkable
class Distribution(Protocol):
    """What a network says about the next action."""

    def sample(self, key: PRNGKey) -> Action: ...

    def mode(self) -> Action: ...

    def log_prob(self, action: Action) -> Float[Array, "*B"]: ...

    def entropy(self) -> Float[Array, "*B"]: ...

    def kl(self, other: Any) -> Float[Array, "*B"]: ...


class Categorical(NamedTuple):
    """One of A actions, with probability softmax(logits)."""

    logits: Float[Array, "*B A"]

    @property
    def log_probs(self) -> Float[Array, "*B A"]:
        return jnp.moveaxis(self._log_probs_first, 0, -1)

    @property
    def _log_probs_first(self) -> Float[Array, "A *B"]:
        # Sums over a short last axis are ten times slower on CPU than over a first one.
        return jax.nn.log_softmax(jnp.moveaxis(self.logits, -1, 0), axis=0)

    def sample(self, key: PRNGKey) -> Int[Array, "*B"]:
        """By inverting the cumulative distribution: one random number for each row."""
        logits = jnp.moveaxis(self.logits, -1, 0)
        weights = jnp.exp(logits - jnp.max(logits, axis=0))
        *below, total = accumulate(weights)
        # Below the total even when rounded: an action of weight 0 is never drawn.
        draw = jax.random.uniform(key, total.shape) * total
        return sum((draw >= x for x in below), jnp.zeros(total.shape, jnp.int32))

    def mode(self) -> Int[Array, "*B"]:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: Int[Array, "*B"]) -> Float[Array, "*B"]:
        # A sum over a mask has a cheaper gradient than a gather, which scatters.
        log_probs = self._log_probs_first
        actions = jnp.arange(len(log_probs)).reshape(-1, *[1] * action.ndim)
        return jnp.sum(jnp.where(action == actions, log_probs, 0.0), axis=0)

    def entropy(self) -> Float[Array, "*B"]:
        log_probs = self._log_probs_first
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=0)

    def kl(self, other: "Categorical") -> Float[Array, "*B"]:
        """KL(self || other)."""
        log_probs = self._log_probs_first
        difference = log_probs - other._log_probs_first
        return jnp.sum(jnp.exp(log_probs) * difference, axis=0)


class DiagNormal(NamedTuple):
    """Independent normal distributions."""

    mean: Float[Array, "*B A"]
    log_std: Float[Array, "*B A"]

    def sample(self, key: PRNGKey) -> Float[Array, "*B A"]:
        noise = jax.random.normal(key, self.mean.shape)
        return self.mean + jnp.exp(self.log_std) * noise

    def mode(self) -> Float[Array, "*B A"]:
        return self.mean

    def log_prob(self, action: Float[Array, "*B A"]) -> Float[Array, "*B"]:
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return jnp.sum(-0.5 * jnp.square(z) - self.log_std - 0.5 * _LOG_2PI, axis=-1)

    def entropy(self) -> Float[Array, "*B"]:
        return jnp.sum(self.log_std + 0.5 * (_LOG_2PI + 1.0), axis=-1)

    def kl(self, other: "DiagNormal") -> Float[Array, "*B"]:
        """KL(self || other)."""
        log_ratio = self.log_std - other.log_std
        distance = (self.mean - other.mean) * jnp.exp(-other.log_std)
        terms = 0.5 * (jnp.exp(2.0 * log_ratio) + jnp.square(distance) - 1.0)
        return jnp.sum(terms - log_ratio, axis=-1)


class SquashedNormal(NamedTuple):
    """A normal distribution pressed into (low, high) by tanh.

        action = centre + half_width tanh(x),   x ~ Normal(mean, std)

    Actions are kept off the bounds by a few float32 steps, where tanh saturates and a
    probability could not be computed back. Source: Haarnoja et al., arXiv:1801.01290,
    appendix C.
    """

    mean: Float[Array, "*B A"]
    """Mean of x."""
    log_std: Float[Array, "*B A"]
    """Logarithm of the standard deviation of x."""
    centre: Float[Array, "*B A"]
    half_width: Float[Array, "*B A"]

    @property
    def _normal(self) -> DiagNormal:
        return DiagNormal(self.mean, self.log_std)

    def _squash(self, x):
        return self.centre + self.half_width * jnp.clip(jnp.tanh(x), -_LIMIT, _LIMIT)

    def _log_slope(self, x):
        """log of d action / d x, without the cancellation in 1 - tanh(x)**2."""
        log_slope = 2.0 * (np.log(2.0) - x - jax.nn.softplus(-2.0 * x))
        return jnp.log(self.half_width) + log_slope

    def sample(self, key: PRNGKey) -> Float[Array, "*B A"]:
        return self._squash(self._normal.sample(key))

    def mode(self) -> Float[Array, "*B A"]:
        """The image of the normal's mean: the median, not the density's maximum."""
        return self._squash(self.mean)

    def log_prob(self, action: Float[Array, "*B A"]) -> Float[Array, "*B"]:
        unit = jnp.clip((action - self.centre) / self.half_width, -_LIMIT, _LIMIT)
        x = jnp.arctanh(unit)
        return self._normal.log_prob(x) - jnp.sum(self._log_slope(x), axis=-1)

    def entropy(self) -> Float[Array, "*B"]:
        """Estimated with the slope at the mean's image, as there is no closed form.

        Exact where the standard deviation of x is small; its gradient still spreads
        the policy and pulls it off the bounds.
        """
        slope = jnp.sum(self._log_slope(self.mean), axis=-1)
        return self._normal.entropy() + slope

    def kl(self, other: "SquashedNormal") -> Float[Array, "*B"]:
        """KL(self || other), which squashing by the same bounds leaves unchanged."""
        return self._normal.kl(other._normal)
