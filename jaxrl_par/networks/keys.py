"""Networks of keys: what an observation is like, as a point among others."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.networks import features
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.features import NetworkConfig, Static
from jaxrl_par.networks.layers import Linear
from jaxrl_par.types import Specs


def key_network(
    observation_spec: Specs,
    action_spec: Specs,
    config: NetworkConfig = NetworkConfig(),
    *,
    width: int = 32,
) -> Network:
    """A network whose outputs are `width` numbers, [..., width].

    Args:
      observation_spec: of `Masked` ones keys are of what is shown, not of the mask.
      config: without memory; `shared` and `policy` are for actor-critics, and change
        nothing here.

    Raises:
      RefusedError: the config does not fit the specs, or has a memory.
    """
    features.check(observation_spec, config, masked=True)
    refuse(width=width)
    if config.memory != "none":
        raise RefusedError(
            f"keys are of single observations: memory must be none, got {config.memory}"
        )
    specs = Static(observation_spec, action_spec)
    module = _Keys(specs, config, width)
    return features.as_network(module, partial(features.empty, config), specs)


class _Keys(nn.Module):
    specs: Static
    config: NetworkConfig
    width: int

    @nn.compact
    def __call__(self, carry, steps, acting=False):
        x, carry = features.read("torso", self.specs, self.config, carry, steps, acting)
        keys = Linear(self.width, scale=1.0, name="keys")(x.astype(jnp.float32))
        return features.over_time(keys, steps), carry
