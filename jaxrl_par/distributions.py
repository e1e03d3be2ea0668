"""Distributions over actions, as pytrees with methods.

Leaves are [*B, A] (A actions or action dimensions); actions are [*B] for `Categorical`
and [*B, A] otherwise; probabilities and entropies are [*B], in nats. Being pytrees,
they can be sliced, stacked and returned from compiled functions.

Leaves in half precision, of whatever network, are computed with in float32.
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
_FEW_ACTIONS = 32
# Weights and standard deviations of normal distributions around 0 whose mixture has the
# density sech(x)**2 / 2, up to 3e-5: fitted to it, to tanh and to log cosh.
_SECH_WEIGHTS = (0.098441, 0.453996, 0.385442, 0.062121)
_SECH_STDS = (0.483734, 0.708106, 1.045464, 1.556029)


@runtime_checkable
class Distribution(Protocol):
    """What a network says about the next action."""

    def sample(self, key: PRNGKey) -> Action: ...

    def sample_and_log_prob(self, key: PRNGKey) -> tuple[Action, Float[Array, "*B"]]:
        """What `sample` gives, and its log-probability. The gradient goes through both
        where actions are continuous, and nothing is lost near a bound."""
        ...

    def mode(self) -> Action: ...

    def log_prob(self, action: Action) -> Float[Array, "*B"]:
        """That of an action that was stored."""
        ...

    def entropy(self) -> Float[Array, "*B"]: ...

    def kl(self, other: Any) -> Float[Array, "*B"]: ...


class Categorical(NamedTuple):
    """One of A actions, with probability softmax(logits).

    An action with a logit of -inf is impossible: it is never drawn, and adds nothing to
    an entropy or its gradient. Where every action is, as in the final observation of a
    game, all count as equally likely: such a row is `last`, and its action ignored.
    """

    logits: Float[Array, "*B A"]

    @property
    def log_probs(self) -> Float[Array, "*B A"]:
        return jnp.moveaxis(self._log_probs_first, 0, -1)

    @property
    def _logits_first(self) -> Float[Array, "A *B"]:
        """With the largest at 0."""
        logits = jnp.moveaxis(_precise(self).logits, -1, 0)
        largest = jax.lax.stop_gradient(jnp.max(logits, axis=0, keepdims=True))
        return jnp.where(largest == -jnp.inf, 0.0, logits - largest)

    @property
    def _log_probs_first(self) -> Float[Array, "A *B"]:
        # Sums over a short last axis are ten times slower on CPU than over a first one.
        logits = self._logits_first
        return logits - jnp.log(jnp.sum(jnp.exp(logits), axis=0, keepdims=True))

    def sample(self, key: PRNGKey) -> Int[Array, "*B"]:
        """Of few actions by inverting the cumulative distribution: one random number
        for each row, and a program that grows with the actions."""
        logits = jnp.moveaxis(_precise(self).logits, -1, 0)
        largest = jnp.max(logits, axis=0)[None]
        # `_logits_first` without its gradient: half a percent of a step of CartPole.
        logits = jnp.where(logits == largest, 0.0, logits - largest)
        if len(logits) > _FEW_ACTIONS:
            return jax.random.categorical(key, logits, axis=0).astype(jnp.int32)
        *below, total = accumulate(jnp.exp(logits))
        # Below the total even when rounded: an action of weight 0 is never drawn.
        draw = jax.random.uniform(key, total.shape) * total
        zeros = jnp.zeros(total.shape, jnp.int32)
        return sum(((draw >= x).astype(jnp.int32) for x in below), zeros)

    def sample_and_log_prob(
        self, key: PRNGKey
    ) -> tuple[Int[Array, "*B"], Float[Array, "*B"]]:
        action = self.sample(key)
        return action, self.log_prob(action)

    def mode(self) -> Int[Array, "*B"]:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: Int[Array, "*B"]) -> Float[Array, "*B"]:
        """That of an action that was stored; -inf of a number that no action has."""
        # A sum over a mask has a cheaper gradient than a gather, which scatters.
        log_probs = self._log_probs_first
        actions = jnp.arange(len(log_probs)).reshape(-1, *[1] * action.ndim)
        found = jnp.sum(jnp.where(action[None] == actions, log_probs, 0.0), axis=0)
        exists = (action >= 0) & (action < len(log_probs))
        return jnp.where(exists, found, -jnp.inf)

    def entropy(self) -> Float[Array, "*B"]:
        log_probs = self._log_probs_first
        probs = jnp.exp(log_probs)
        return -jnp.sum(probs * jnp.where(probs > 0.0, log_probs, 0.0), axis=0)

    def kl(self, other: "Categorical") -> Float[Array, "*B"]:
        """KL(self || other), infinite where only `other` makes an action impossible."""
        _check_kinds(self, other)
        log_probs = self._log_probs_first
        probs = jnp.exp(log_probs)
        difference = log_probs - other._log_probs_first
        return jnp.sum(probs * jnp.where(probs > 0.0, difference, 0.0), axis=0)


class DiagNormal(NamedTuple):
    """Independent normal distributions."""

    mean: Float[Array, "*B A"]
    log_std: Float[Array, "*B A"]

    def sample(self, key: PRNGKey) -> Float[Array, "*B A"]:
        mean, log_std = _precise(self)
        return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)

    def sample_and_log_prob(
        self, key: PRNGKey
    ) -> tuple[Float[Array, "*B A"], Float[Array, "*B"]]:
        action = self.sample(key)
        return action, self.log_prob(action)

    def mode(self) -> Float[Array, "*B A"]:
        return _precise(self).mean

    def log_prob(self, action: Float[Array, "*B A"]) -> Float[Array, "*B"]:
        mean, log_std = _precise(self)
        z = (action - mean) * jnp.exp(-log_std)
        return jnp.sum(-0.5 * jnp.square(z) - log_std - 0.5 * _LOG_2PI, axis=-1)

    def entropy(self) -> Float[Array, "*B"]:
        return jnp.sum(_precise(self).log_std + 0.5 * (_LOG_2PI + 1.0), axis=-1)

    def kl(self, other: "DiagNormal") -> Float[Array, "*B"]:
        """KL(self || other)."""
        _check_kinds(self, other)
        mean, log_std = _precise(self)
        other_mean, other_log_std = _precise(other)
        log_ratio = log_std - other_log_std
        distance = (mean - other_mean) * jnp.exp(-other_log_std)
        terms = 0.5 * (jnp.exp(2.0 * log_ratio) + jnp.square(distance) - 1.0)
        return jnp.sum(terms - log_ratio, axis=-1)


class SquashedNormal(NamedTuple):
    """A normal distribution pressed into (low, high) by tanh.

        action = centre + half_width tanh(x),   x ~ Normal(mean, std)

    Actions are kept off the bounds by a few float32 steps, where tanh saturates and a
    probability could not be computed back. What is learned from is the action that was
    stored: `log_prob` inverts it, and finds x with an error of about 1e-8 exp(2 |x|),
    more if the bounds are far from 0. Beyond |x| = 7.25 it finds 7.25, when acting and
    when learning, so that their ratio is 1. Source: Haarnoja et al., arXiv:1801.01290,
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
        _, _, centre, half_width = _precise(self)
        return centre + half_width * jnp.clip(jnp.tanh(x), -_LIMIT, _LIMIT)

    def _log_density(self, x) -> Float[Array, "*B"]:
        """log of the density of x by d action / d x, but not by 1 - tanh(x)**2, which
        loses all digits."""
        log_slope = 2.0 * (np.log(2.0) - x - jax.nn.softplus(-2.0 * x))
        log_slope += jnp.log(_precise(self).half_width)
        return self._normal.log_prob(x) - jnp.sum(log_slope, axis=-1)

    def sample(self, key: PRNGKey) -> Float[Array, "*B A"]:
        return self._squash(self._normal.sample(key))

    def sample_and_log_prob(
        self, key: PRNGKey
    ) -> tuple[Float[Array, "*B A"], Float[Array, "*B"]]:
        return self.squashed(self._normal.sample(key))

    def squashed(
        self, x: Float[Array, "*B A"]
    ) -> tuple[Float[Array, "*B A"], Float[Array, "*B"]]:
        """The action that x becomes, and its log-probability, from x itself."""
        return self._squash(x), self._log_density(x)

    def mode(self) -> Float[Array, "*B A"]:
        """The image of the normal's mean: the median, not the density's maximum."""
        return self._squash(_precise(self).mean)

    def log_prob(self, action: Float[Array, "*B A"]) -> Float[Array, "*B"]:
        _, _, centre, half_width = _precise(self)
        unit = jnp.clip((action - centre) / half_width, -_LIMIT, _LIMIT)
        return self._log_density(jnp.arctanh(unit))

    def entropy(self) -> Float[Array, "*B"]:
        """That of the normal, and the mean of log(d action / d x).

            E log(half_width sech(x)**2) = log(4 half_width) - 2 E log(2 cosh(x))

        log(2 cosh(x)) is E|x + y| where y has the density sech(y)**2 / 2. As that is a
        mixture of normals, x + y is one too, and the mean has a closed form. Exact to
        3e-5 for every mean and deviation, and so is its slope.

        Source: Monahan and Stefanski (1992), Normal scale mixture approximations.
        """
        mean, log_std, _, half_width = _precise(self)
        variance = jnp.exp(2.0 * log_std)
        log_slope = jnp.log(4.0 * half_width)
        for weight, std in zip(_SECH_WEIGHTS, _SECH_STDS, strict=True):
            sizes = _mean_size(mean, jnp.sqrt(variance + std**2))
            log_slope = log_slope - 2.0 * weight * sizes
        return self._normal.entropy() + jnp.sum(log_slope, axis=-1)

    def kl(self, other: "SquashedNormal") -> Float[Array, "*B"]:
        """KL(self || other), which squashing by the same bounds leaves unchanged."""
        _check_kinds(self, other)
        return self._normal.kl(other._normal)


def _check_kinds(one: Any, other: Any) -> None:
    kinds = [type(x).__name__ for x in (one, other)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"policies of one kind have a KL, and not {kinds[0]} and {kinds[1]}: give"
            " both networks the same `policy` and actions"
        )


def _mean_size(mean: Array, std: Array) -> Array:
    """E|x| of a normal distribution."""
    z = mean / std
    bell = np.sqrt(2.0 / np.pi) * jnp.exp(-0.5 * jnp.square(z))
    return std * bell + mean * jax.lax.erf(z * np.sqrt(0.5))


def _precise(distribution: Any) -> Any:
    """With leaves of float32, if they had fewer digits."""

    def precise(x: Any) -> Any:
        return x if x.dtype == jnp.float64 else x.astype(jnp.float32)

    return jax.tree.map(precise, distribution)
