"""Networks of the values of actions, for any observation, from one config."""

import math
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.networks import features
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.features import NetworkConfig, Static
from jaxrl_par.networks.layers import linear, orthogonal
from jaxrl_par.types import Discrete, Spec, Specs


def q_network(
    observation_spec: Specs,
    action_spec: Spec,
    config: NetworkConfig = NetworkConfig(),
    *,
    dueling: bool = False,
    num_atoms: int | None = None,
) -> Network:
    """A network whose outputs are the values of all actions, [..., A].

    Args:
      action_spec: one of A integers.
      config: `shared` and `policy` are for actor-critics, and change nothing here.
      dueling: Q = V + A - the mean of A over actions. Source: Wang et al.,
        arXiv:1511.06581, equation 9.
      num_atoms: outputs [..., A, num_atoms], of which a distribution of the return is
        made; dueling atom by atom.

    Raises:
      ValueError: the config does not fit the specs.
      RefusedError: actions are not discrete.
    """
    features.check(observation_spec, config)
    refuse(num_atoms=num_atoms)
    if not isinstance(action_spec, Discrete) or action_spec.shape:
        raise RefusedError(
            "values of all actions need a single Discrete action, not"
            f" {action_spec!r}: for others, take an actor-critic"
        )
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
        if self.dueling:
            state = self._head("state_value", x, (1, *self.shape[1:]))
            values += state - jnp.mean(values, axis=1, keepdims=True)
        return features.over_time(values, steps), carry

    def _head(self, name, x, shape):
        number = math.prod(shape)
        kernel = self.param(name, orthogonal(1.0), (x.shape[1], number))
        zeros = nn.initializers.zeros
        bias = self.param(f"{name}_bias", zeros, (number,), jnp.float32)
        return linear(x.astype(jnp.float32), kernel, bias).reshape(-1, *shape)
