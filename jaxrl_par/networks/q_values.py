"""Networks of the values of actions, for any observation, from one config."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxrl_par.networks import features
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.features import NetworkConfig, Static
from jaxrl_par.networks.layers import linear, orthogonal
from jaxrl_par.types import Discrete, Spec, Specs


def q_network(
    observation_spec: Specs, action_spec: Spec, config: NetworkConfig = NetworkConfig()
) -> Network:
    """A network whose outputs are the values of all actions, [..., A].

    Args:
      action_spec: one of A integers.
      config: `shared` and `policy` are for actor-critics, and change nothing here.

    Raises:
      ValueError: the config does not fit the specs, or actions are not discrete.
    """
    features.check(observation_spec, config)
    if not isinstance(action_spec, Discrete) or action_spec.shape:
        raise ValueError(
            "values of all actions need a single Discrete action, not"
            f" {action_spec!r}: for others, take an actor-critic"
        )
    specs = Static(observation_spec, action_spec)
    module = _QValues(specs, config, action_spec.num_values)
    return features.as_network(module, partial(features.empty, config), specs)


class _QValues(nn.Module):
    specs: Static
    config: NetworkConfig
    num_actions: int

    @nn.compact
    def __call__(self, carry, steps, acting=False):
        parts = (self.specs, self.config, carry, steps, acting)
        x, carry = features.read("torso", *parts)
        shape = (x.shape[1], self.num_actions)
        kernel = self.param("q_values", orthogonal(1.0), shape)
        bias = self.param(
            "q_values_bias", nn.initializers.zeros, shape[1:], jnp.float32
        )
        values = linear(x.astype(jnp.float32), kernel, bias)
        return features.over_time(values, steps), carry
