"""Networks of what an action does: the change of what is seen, a reward, an end."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxrl_par.errors import RefusedError, told
from jaxrl_par.networks import features
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.features import NetworkConfig, Static
from jaxrl_par.networks.layers import linear, orthogonal
from jaxrl_par.types import Box, Specs


def world_network(
    observation_spec: Specs, action_spec: Specs, config: NetworkConfig = NetworkConfig()
) -> Network:
    """A network whose outputs are (change [..., D], reward [...], logit of an end
    [...]), all in the units in which they are learned.

    It reads steps that show a pair, (obs, action).

    Args:
      config: `shared` and `policy` change nothing here.

    Raises:
      ValueError: the config does not fit the specs.
      RefusedError: observations are no vector of real numbers, or there is memory.
    """
    spec = observation_spec
    if not (
        isinstance(spec, Box)
        and len(spec.shape) == 1
        and np.issubdtype(spec.dtype, np.floating)
    ):
        raise RefusedError(
            "a world model predicts changes of a vector of real numbers, and"
            f" observations are {told(spec)}: take an environment that shows one, such"
            " as CartPole-v1"
        )
    if config.memory != "none":
        raise RefusedError(
            f"memory of a world model must be none, got {config.memory}: it learns from"
            " single transitions"
        )
    seen = (observation_spec, action_spec)
    features.check(seen, config)
    specs = Static(seen, action_spec)
    module = _World(specs, config, spec.shape[0])
    return features.as_network(module, partial(features.empty, config), specs)


class _World(nn.Module):
    specs: Static
    config: NetworkConfig
    size: int
    """D"""

    @nn.compact
    def __call__(self, carry, steps, acting=False):
        parts = (self.specs, self.config, carry, steps, acting)
        x, carry = features.read("torso", *parts)
        shape = (x.shape[1], self.size + 2)
        kernel = self.param("world", orthogonal(0.01), shape)
        zeros = nn.initializers.zeros
        bias = self.param("world_bias", zeros, shape[1:], jnp.float32)
        rows = linear(x.astype(jnp.float32), kernel, bias)
        outputs = (rows[:, : self.size], rows[:, -2], rows[:, -1])
        return features.over_time(outputs, steps), carry
