"""Actions that given noise decides, and their log-probabilities, without JAX.

The equations are those of `jaxrl_par.distributions` and `jaxrl_par.joint`, operation by
operation: given the same parameters, results differ by rounding.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from math import prod
from operator import add
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, UInt32

from jaxrl_par import draws
from jaxrl_par.numpy_actor import action_of, prefixes, together

Rows = Float32[np.ndarray, "B A"]
Policy = Mapping[str, Float32[np.ndarray, "B ..."]]
"""Parameters by name, as `numpy_actor.Actor.distribution` gives them."""
MOST_ACTIONS = 32
"""Of a list. More are drawn otherwise: see `Categorical.sample`."""
_HALF_LOG_2PI = np.float32(0.5 * np.log(2.0 * np.pi))
_LOG_2, _TWO, _HALF = np.float32(np.log(2.0)), np.float32(2), np.float32(0.5)
_LIMIT = np.float32(1.0 - 1e-6)


class Drawing:
    """How the action of a policy that was described is drawn, part by part."""

    def __init__(self, config: Mapping[str, Any]):
        self._action = config["action"]
        specs = self._action.get("parts", [self._action])
        masks = {x.get("of"): x["shape"] for x in config["observations"]}
        self._parts = [
            _Part(prefix, spec, masks.get(spec["name"]))
            for prefix, spec in zip(prefixes(self._action), specs, strict=True)
        ]
        self.most_actions = max(part.num_actions for part in self._parts)
        """Of a list between which one number decides."""

    def noise(
        self, keys: UInt32[np.ndarray, "T 2"], num_envs: int
    ) -> list[Float32[np.ndarray, "T B ..."]]:
        """What is drawn from the keys of T steps, for each part."""
        each = [keys]
        if self._action["kind"] == "parts":
            each = np.moveaxis(draws.split(keys, len(self._parts)), 1, 0)
        return [
            (draws.normal if part.is_real else draws.uniform)(
                key, (num_envs, *part.numbers)
            )
            for key, part in zip(each, self._parts, strict=True)
        ]

    def __call__(
        self, policy: Policy, noise: Sequence[Float32[np.ndarray, "B ..."]]
    ) -> tuple[Any, Float32[np.ndarray, " B"]]:
        """Actions as the stream has them, and their log-probabilities."""
        both = [x.drawn(policy, y) for x, y in zip(self._parts, noise, strict=True)]
        actions, log_probs = zip(*both, strict=True)
        return action_of(self._action, actions), reduce(add, log_probs)


class _Part:
    """A single action, and the mask of it that there may be."""

    def __init__(
        self, prefix: str, spec: Mapping[str, Any], mask: Sequence[int] | None
    ):
        self._prefix, self._shape = prefix, tuple(spec["shape"])
        self.is_real = spec["kind"] == "box"
        sizes = np.ravel(spec.get("nvec", spec.get("num_values", 0))).tolist()
        joined = "nvec" in spec and together(spec, mask)
        self.num_actions = prod(sizes) if joined else max(sizes)
        self._sizes = sizes if joined else None
        self.numbers = () if joined or not self._shape else (prod(self._shape),)
        """Shape of what is drawn for an environment."""

    def drawn(
        self, policy: Policy, noise: Float32[np.ndarray, "..."]
    ) -> tuple[np.ndarray, Float32[np.ndarray, " B"]]:
        """Actions [B, *shape]."""
        own = {
            name.removeprefix(self._prefix).removeprefix("inner."): x
            for name, x in policy.items()
            if name.startswith(self._prefix)
        }
        if self.is_real:
            action, log_prob = _reals(own, noise)
        elif self._sizes is not None:
            index, log_prob = _categorical(own["choice.logits"], noise)
            each = np.unravel_index(index, self._sizes)
            action = np.stack(each, axis=1).astype(np.int32)
        elif self.numbers:
            logits = own["logits"].reshape(noise.size, -1)
            action, log_prob = _categorical(logits, noise.reshape(-1))
            log_prob = log_prob.reshape(noise.shape).sum(axis=1)
        else:
            return _categorical(own["logits"], noise)
        return action.reshape(-1, *self._shape), log_prob


def _reals(policy: Policy, noise: Rows) -> tuple[Rows, Float32[np.ndarray, " B"]]:
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
