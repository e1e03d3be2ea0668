"""Values that are quadratic in the action, so that the best action is an output.

    Q(o, u) = V(o) + A(o, u),   A = -1/2 (u - mu)^T P (u - mu),   P = L L^T

L is lower triangular, with an exponentiated diagonal: so P is positive definite, no
advantage is above 0, and max_u Q = V = Q(o, mu), without a search.

Source: Gu et al., arXiv:1603.00748, section 4.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrl_par.networks import features
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.continuous import checked
from jaxrl_par.networks.features import NetworkConfig, Static
from jaxrl_par.networks.layers import linear, orthogonal
from jaxrl_par.types import Specs

LOG_DIAGONAL = (-5.0, 2.0)
"""Bounds of the logarithm of L's diagonal: with a large P, gradients explode far from
mu."""


class Quadratic(NamedTuple):
    """Values of all actions in states [*B], in units of the bounds."""

    value: Float[Array, "*B"]
    """V, that of the best action."""
    mean: Float[Array, "*B A"]
    """mu, the best action."""
    factor: Float[Array, "*B A A"]
    """L."""

    def advantage(self, unit: Float[Array, "*B A"]) -> Float[Array, "*B"]:
        """A(u), at most 0: minus half the square of L^T (u - mu)."""
        # Not L (u - mu), which has another length.
        turned = jnp.sum(self.factor * (unit - self.mean)[..., :, None], axis=-2)
        return -0.5 * jnp.sum(jnp.square(turned), axis=-1)

    def q_value(self, unit: Float[Array, "*B A"]) -> Float[Array, "*B"]:
        """Q(u) = V + A(u)."""
        return self.value + self.advantage(unit)

    def shaped(self, normal: Float[Array, "*B A"]) -> Float[Array, "*B A"]:
        """Noise of the covariance P^-1, from independent normal noise z: L^-T z."""
        # Of several dimensions one after the other, from the last one on: L^T is upper
        # triangular.
        solved: list[Array] = []
        for i in reversed(range(normal.shape[-1])):
            known = zip(range(i + 1, normal.shape[-1]), reversed(solved), strict=True)
            rest = sum(self.factor[..., j, i] * x for j, x in known)
            solved.append((normal[..., i] - rest) / self.factor[..., i, i])
        return jnp.stack(solved[::-1], axis=-1)


def factor(raw: Float[Array, "*B N"], num_actions: int) -> Float[Array, "*B A A"]:
    """L from N = A (A + 1) / 2 numbers: the logarithm of its diagonal, and what is
    below that, row by row."""
    diagonal = jnp.exp(_bounded(raw[..., :num_actions]))
    zero = jnp.zeros_like(raw[..., :1])
    numbers = jnp.concatenate([diagonal, raw[..., num_actions:], zero], axis=-1)
    index = np.full((num_actions, num_actions), raw.shape[-1])
    index[np.diag_indices(num_actions)] = np.arange(num_actions)
    below = np.tril_indices(num_actions, -1)
    index[below] = num_actions + np.arange(len(below[0]))
    return numbers[..., index]


@jax.custom_vjp
def _bounded(x: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """Within the bounds, and with a slope where that leads back: a curvature that met
    its bound once would otherwise never be learned again."""
    return jnp.clip(x, *LOG_DIAGONAL)


def _bounded_forward(x: Float[Array, "*N"]):
    return _bounded(x), x


def _bounded_backward(x: Float[Array, "*N"], slope: Float[Array, "*N"]):
    low, high = LOG_DIAGONAL
    # Parameters go against the slope.
    away = (x > high) & (slope < 0.0) | (x < low) & (slope > 0.0)
    return (jnp.where(away, 0.0, slope),)


_bounded.defvjp(_bounded_forward, _bounded_backward)


def normalised_advantage(
    observation_spec: Specs, action_spec: Specs, config: NetworkConfig = NetworkConfig()
) -> Network:
    """A network whose outputs are a `Quadratic` of the unit action.

    mu is within the bounds, by tanh; where actions have none it may be anything. It
    begins near the centre, L near the identity.

    Args:
      config: `shared` and `policy` change nothing here.

    Raises:
      ValueError: the config does not fit the specs.
      RefusedError: actions are no vector of real numbers, some have bounds and others
        none, or the config has memory.
    """
    units = checked(observation_spec, action_spec, config, unbounded=True)
    specs = Static(observation_spec, action_spec)
    module = _Quadratic(specs, config, len(units.low), units.bounded)
    return features.as_network(module, partial(features.empty, config), specs)


class _Quadratic(nn.Module):
    specs: Static
    config: NetworkConfig
    num_actions: int
    bounded: bool

    @nn.compact
    def __call__(self, carry, steps, acting=False):
        parts = (self.specs, self.config, carry, steps, acting)
        x, carry = features.read("actor", *parts)
        number = self.num_actions
        below = number * (number + 1) // 2
        heads = (("policy", number, 0.01), ("factor", below, 0.01), ("value", 1, 1.0))
        kernels, biases = zip(*(self._head(x, *head) for head in heads), strict=True)
        # One product with all outputs: with few of them, each reads all features.
        outputs = linear(
            x.astype(jnp.float32),
            jnp.concatenate(kernels, axis=1),
            jnp.concatenate(biases),
        )
        mean, raw = outputs[:, :number], outputs[:, number:-1]
        mean = jnp.tanh(mean) if self.bounded else mean
        made = Quadratic(outputs[:, -1], mean, factor(raw, number))
        return features.over_time(made, steps), carry

    def _head(self, x: jax.Array, name: str, size: int, scale: float):
        kernel = self.param(name, orthogonal(scale), (x.shape[1], size))
        zeros = nn.initializers.zeros
        return kernel, self.param(f"{name}_bias", zeros, (size,), jnp.float32)
