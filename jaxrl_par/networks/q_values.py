"""Networks of the values of actions, for any observation, from one config."""

import math
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.masks import allowed
from jaxrl_par.networks import features
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.features import NetworkConfig, Static
from jaxrl_par.networks.heads import refuse_mask
from jaxrl_par.networks.layers import linear, orthogonal
from jaxrl_par.types import Discrete, Specs


def q_network(
    observation_spec: Specs,
    action_spec: Specs,
    config: NetworkConfig = NetworkConfig(),
    *,
    dueling: bool = False,
    num_atoms: int | None = None,
) -> Network:
    """A network whose outputs are the values of all actions, [..., A]; -inf of those
    that the mask of a `Masked` observation does not allow.

    Args:
      action_spec: one of A integers.
      config: `shared` and `policy` are for actor-critics, and change nothing here.
      dueling: Q = V + A - the mean of A over the actions that are allowed: those of
        the others are never learned. Source: Wang et al., arXiv:1511.06581, equation 9.
      num_atoms: outputs [..., A, num_atoms], of which a distribution of the return is
        made; dueling atom by atom.

    Raises:
      ValueError: the config does not fit the specs.
      RefusedError: actions are not discrete, or the mask is not theirs.
    """
    features.check(observation_spec, config, masked=True)
    refuse(num_atoms=num_atoms)
    if not isinstance(action_spec, Discrete) or action_spec.shape:
        raise RefusedError(
            "values of all actions need a single Discrete action, not"
            f" {action_spec!r}: for others take ppo, or another actor-critic"
        )
    if (mask := allowed(observation_spec)) is not None:
        refuse_mask(action_spec, mask)
    specs = Static(observation_spec, action_spec)
    atoms = () if num_atoms is None else (num_atoms,)
    module = _QValues(specs, config, (action_spec.num_values, *atoms), dueling)
    return features.as_network(module, partial(features.empty, config), specs)


class _QValues(nn.Module):
    specs: Static
    config: NetworkConfig
    shape: tuple[int, ...]
    """(A,) or (A, atoms)."""
    dueling: bool

    @nn.compact
    def __call__(self, carry, steps, acting=False):
        parts = (self.specs, self.config, carry, steps, acting)
        x, carry = features.read("torso", *parts)
        values = self._head("q_values", x, self.shape)
        mask = features.rows_of(allowed(steps.obs))
        if mask is not None:
            # Atom by atom, as the values.
            columns = mask.reshape(*mask.shape, *[1] * (values.ndim - 2))
            mask = jnp.broadcast_to(columns, values.shape)
        if self.dueling:
            state = self._head("state_value", x, (1, *self.shape[1:]))
            values += state - _mean(values, mask)
        if mask is not None:
            values = jnp.where(mask, values, -jnp.inf)
        return features.over_time(values, steps), carry

    def _head(self, name, x, shape):
        number = math.prod(shape)
        kernel = self.param(name, orthogonal(1.0), (x.shape[1], number))
        zeros = nn.initializers.zeros
        bias = self.param(f"{name}_bias", zeros, (number,), jnp.float32)
        return linear(x.astype(jnp.float32), kernel, bias).reshape(-1, *shape)


def _mean(values, mask):
    """Over the actions that are allowed; 0 where none is."""
    if mask is None:
        return jnp.mean(values, axis=1, keepdims=True)
    number = jnp.sum(mask, axis=1, keepdims=True, dtype=values.dtype)
    total = jnp.sum(jnp.where(mask, values, 0.0), axis=1, keepdims=True)
    return total / jnp.maximum(number, 1.0)
