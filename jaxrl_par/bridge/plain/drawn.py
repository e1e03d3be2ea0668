"""Actions that given noise decides, and their log-probabilities, without JAX.

The equations are those of `jaxrl_par.distributions`, operation by operation: given the
same parameters, results differ by rounding.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, Int32

Rows = Float32[np.ndarray, "B A"]
Policy = Mapping[str, Rows]
"""Parameters by name, as `numpy_actor.Actor.distribution` gives them."""
MOST_ACTIONS = 32
"""Of a list. More are drawn otherwise: see `Categorical.sample`."""
_HALF_LOG_2PI = np.float32(0.5 * np.log(2.0 * np.pi))
_LOG_2, _TWO, _HALF = np.float32(np.log(2.0)), np.float32(2), np.float32(0.5)
_LIMIT = np.float32(1.0 - 1e-6)


def drawn(
    policy: Policy, noise: Float32[np.ndarray, "..."]
) -> tuple[Int32[np.ndarray, " B"] | Rows, Float32[np.ndarray, " B"]]:
    """Actions, and their log-probabilities."""
    if "logits" in policy:
        return _categorical(policy["logits"], noise)
    x = policy["mean"] + np.exp(policy["log_std"]) * noise
    if "centre" not in policy:
        return x, _normal_log_prob(policy, x)
    centre, half_width = policy["centre"], policy["half_width"]
    action = centre + half_width * np.clip(np.tanh(x), -_LIMIT, _LIMIT)
    # From the action that is stored, as whoever learns will find it.
    x = np.arctanh(np.clip((action - centre) / half_width, -_LIMIT, _LIMIT))
    log_slope = _TWO * (_LOG_2 - x - np.logaddexp(np.float32(0), -_TWO * x))
    log_slope += np.log(half_width)
    return action, _normal_log_prob(policy, x) - log_slope.sum(axis=1)


def _categorical(
    logits: Rows, noise: Float32[np.ndarray, " B"]
) -> tuple[Int32[np.ndarray, " B"], Float32[np.ndarray, " B"]]:
    first = logits.T
    largest = first.max(axis=0)
    impossible = largest == -np.inf
    first, largest = (np.where(impossible, np.float32(0), x) for x in (first, largest))
    first = first - largest
    # Below the total even when rounded: an action of weight 0 is never drawn.
    *below, total = np.cumsum(np.exp(first), axis=0)
    draw = noise * total
    action = np.zeros(len(draw), np.int32)
    for weight in below:
        action += draw >= weight
    return action, first[action, np.arange(len(action))] - np.log(total)


def _normal_log_prob(policy: Policy, x: Rows) -> Float32[np.ndarray, " B"]:
    log_std = policy["log_std"]
    z = (x - policy["mean"]) * np.exp(-log_std)
    return (-_HALF * z * z - log_std - _HALF_LOG_2PI).sum(axis=1)
