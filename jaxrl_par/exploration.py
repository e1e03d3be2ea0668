"""Policies that explore, made of the values of actions.

Values are q_values[..., a], of A discrete actions in environments [*B]. A value of -inf
makes an action impossible; where all are, as in the final observation of a game, they
count as equal. What decides how much is explored is one number for all environments, or
one for each, [*B].
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.types import PRNGKey

QValues = Float[Array, "*B A"]
Probabilities = Float[Array, "*B A"]
Actions = Int[Array, "*B"]
Rates = Float[Array, "*#B"] | float
"""One for all environments or one for each."""


def epsilon_greedy_probabilities(q_values: QValues, epsilon: Rates) -> Probabilities:
    """Any possible action with probability `epsilon`, else one of the largest value.

        pi(a) = epsilon / A + (1 - epsilon) [q(a) = max q] / (number of maxima)

    The largest is explored too, so its probability is not 1 - epsilon but above.
    """
    q_values = possible_values(q_values)
    possible = _uniform(q_values > -jnp.inf)
    greedy = _uniform(q_values == jnp.max(q_values, axis=-1, keepdims=True))
    rate = _for_rows(epsilon, q_values)
    return rate * possible + (1.0 - rate) * greedy


def epsilon_greedy(key: PRNGKey, q_values: QValues, epsilon: Rates) -> Actions:
    """An action for each environment; ties of values are broken at random."""
    probabilities = epsilon_greedy_probabilities(q_values, epsilon)
    return jax.random.categorical(key, jnp.log(probabilities)).astype(jnp.int32)


def boltzmann_probabilities(
    q_values: QValues, inverse_temperature: Rates
) -> Probabilities:
    """More of what is worth more: pi(a) = exp(rho q(a)) / sum_b exp(rho q(b)).

    Uniform for an inverse temperature rho of 0, greedy as it grows. No finite number
    overflows.
    """
    return jax.nn.softmax(_logits(q_values, inverse_temperature))


def boltzmann(key: PRNGKey, q_values: QValues, inverse_temperature: Rates) -> Actions:
    """An action for each environment."""
    logits = _logits(q_values, inverse_temperature)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def ladder(
    num_envs: int,
    choices: Sequence[float] | Float[Array, " C"],
    weights: Sequence[float],
) -> Float[Array, " num_envs"]:
    """A rate for each environment: choice c for a share `weights[c]` of them.

    Not drawn: environment i gets the choice that is furthest behind its share of the
    first i + 1, the earlier of equals. So any number of environments in a row has each
    choice as often as it should, but for less than two: workers that take a block each
    may be of any size. With weights 0.4, 0.3, 0.3, any ten in a row have 4, 3 and 3.

    Args:
      choices: may be traced.
      weights: of any positive sum.

    Raises:
      ValueError: `shares` refuses the weights.

    Source: Mnih et al., arXiv:1602.01783, section 5.1, where threads draw theirs.
    """
    due = shares(len(choices), weights)
    counts, indices = np.zeros(len(due)), np.zeros(num_envs, np.int32)
    for i in range(num_envs):
        # Rounded, or the last bits would break ties, and the order had no period.
        indices[i] = np.argmax(np.round((i + 1) * due - counts, 9))
        counts[indices[i]] += 1
    return jnp.asarray(choices, jnp.float32)[indices]


def geometric_ladder(
    num_envs: int, base: float = 0.4, exponent: float = 7.0
) -> Float[Array, " num_envs"]:
    """A rate for each of N environments, base^(1 + exponent i / (N - 1)).

    From `base`, which is also that of a single one, to base^(1 + exponent).

    Source: Horgan et al., arXiv:1803.00933, section 3.1.
    """
    rung = np.arange(num_envs) / max(num_envs - 1, 1)
    return jnp.asarray(base ** (1.0 + exponent * rung), jnp.float32)


def shares(num_choices: int, weights: Sequence[float]) -> Float[np.ndarray, " C"]:
    """Weights, one for each choice, divided by their sum.

    Raises:
      ValueError: there is not one for each, one is negative, or none is positive.
    """
    given = np.asarray(weights, np.float64)
    if given.shape != (num_choices,):
        raise ValueError(
            f"each choice needs one weight, got {num_choices} choices and weights"
            f" {weights}"
        )
    if np.any(~(given >= 0)) or not 0 < given.sum() < np.inf:
        raise ValueError(f"weights must be 0 or more, and one above, got {weights}")
    return given / given.sum()


def possible_values(q_values: QValues) -> QValues:
    """The values, or 0 for each action of a row in which none is possible, in float32
    if they had fewer digits."""
    wide = q_values.dtype == jnp.float64
    q_values = q_values.astype(jnp.float64 if wide else jnp.float32)
    none = jnp.max(q_values, axis=-1, keepdims=True) == -jnp.inf
    return jnp.where(none, 0.0, q_values)


def _uniform(chosen: Bool[Array, "*B A"]) -> Probabilities:
    weights = chosen.astype(jnp.float32)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def _logits(q_values: QValues, inverse_temperature: Rates) -> Float[Array, "*B A"]:
    q_values = possible_values(q_values)
    # The largest is subtracted first: times a large rho, it would overflow.
    largest = jnp.max(q_values, axis=-1, keepdims=True)
    below = jnp.maximum(q_values - largest, jnp.finfo(q_values.dtype).min)
    # Infinity less itself would be no number.
    below = jnp.where(q_values == largest, 0.0, below)
    # What is impossible stays so, also for rho = 0.
    scaled = _for_rows(inverse_temperature, q_values) * below
    return jnp.where(q_values == -jnp.inf, -jnp.inf, scaled)


def _for_rows(rates: Rates, q_values: QValues) -> Float[Array, "*B 1"]:
    return jnp.broadcast_to(rates, q_values.shape[:-1])[..., None]
