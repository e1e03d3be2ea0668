"""Policies of bounded real numbers, and values of them, in units of their bounds.

A unit action u in [-1, 1]^A stands for centre + half_width u in the environment.
Networks give and read units alone, so that an environment in other units is the same
problem: the same features, entropies and steps, whatever the width of its bounds.
"""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrl_par.distributions import SquashedNormal
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import features
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.features import NetworkConfig, Static
from jaxrl_par.networks.layers import Linear, linear, orthogonal
from jaxrl_par.types import Box, Params, Specs, TimeStep

LOG_STD = (-20.0, 2.0)
"""Bounds of the logarithm of a Gaussian policy's standard deviation, before the squash.
Source: Haarnoja et al., arXiv:1812.05905, the authors' code."""
_JOINED = 256
"""Units that read an image's features together with the action."""


@dataclass(frozen=True, eq=False)
class Units:
    """From actions of an environment [..., A] to units of their bounds, and back."""

    low: Float[np.ndarray, " A"]
    high: Float[np.ndarray, " A"]

    @property
    def bounded(self) -> bool:
        """Whether there are bounds; without any, units are the environment's."""
        return bool(np.all(np.isfinite(self.low)))

    @property
    def centre(self) -> Float[np.ndarray, " A"]:
        # A sum of bounds may be too large for float32, where their distance is not.
        return self.low / 2 + self.high / 2 if self.bounded else 0.0 * self._ones

    @property
    def half_width(self) -> Float[np.ndarray, " A"]:
        return (self.high - self.low) / 2 if self.bounded else self._ones

    @property
    def _ones(self) -> Float[np.ndarray, " A"]:
        return np.ones(self.low.shape, np.float32)

    def action(self, unit: Float[Array, "*B A"]) -> Float[Array, "*B A"]:
        """What the environment takes; within its bounds in every bit."""
        rows = partial(_over, like=unit)
        action = rows(self.centre) + rows(self.half_width) * unit
        return jnp.clip(action, rows(self.low), rows(self.high))

    def unit(self, action: Float[Array, "*B A"]) -> Float[Array, "*B A"]:
        """What an action that was stored is in units."""
        rows = partial(_over, like=action)
        return (action - rows(self.centre)) / rows(self.half_width)


def units_of(action_spec: Specs, *, unbounded: bool = False) -> Units:
    """The units of a vector of real numbers, each with two bounds.

    Args:
      unbounded: a vector in which none has a bound will do, too.

    Raises:
      RefusedError: actions are anything else.
    """
    numbers = "real numbers" if unbounded else "bounded real numbers"
    if not isinstance(action_spec, Box):
        raise RefusedError(
            f"actions must be a Box of {numbers} here, got"
            f" {action_spec!r}: for Discrete ones, take dqn; ppo takes any"
        )
    if not np.issubdtype(action_spec.dtype, np.floating):
        raise RefusedError(
            f"actions must be real numbers here, got {action_spec}: make the"
            " environment take floats and round them"
        )
    if len(action_spec.shape) != 1 or not action_spec.shape[0]:
        raise RefusedError(
            "an action must be a vector of numbers, not an array of shape"
            f" {action_spec.shape}"
        )
    low, high = (np.broadcast_to(x, action_spec.shape) for x in action_spec.inner)
    if unbounded and np.all(np.isinf(low) & np.isinf(high)):
        return Units(low, high)
    with np.errstate(over="ignore", invalid="ignore"):
        width = high - low
    if not np.all(np.isfinite(width) & (width > 0)):
        none = ", or none of them any" if unbounded else ""
        raise RefusedError(
            "every action must have a lower and a higher bound, whose distance is"
            f" finite in float32{none}, got {action_spec}: bound them with"
            " gymnasium.wrappers.RescaleAction, or take ppo, whose policy needs none"
        )
    return Units(low, high)


def gaussian_policy(
    observation_spec: Specs, action_spec: Specs, config: NetworkConfig = NetworkConfig()
) -> Network:
    """A network whose outputs are a `SquashedNormal` of the unit action, [..., A].

    Its mean and its standard deviation depend on what is seen. It begins near mean 0
    and standard deviation 1, which spread over all of the bounds.

    Args:
      config: `shared` and `policy` change nothing here.

    Raises:
      ValueError: the config does not fit the specs.
      RefusedError: as `units_of`, or the config has memory.
    """
    return _policy(observation_spec, action_spec, config, deterministic=False)


def deterministic_policy(
    observation_spec: Specs, action_spec: Specs, config: NetworkConfig = NetworkConfig()
) -> Network:
    """A network whose outputs are unit actions, [..., A]; all else as the Gaussian."""
    return _policy(observation_spec, action_spec, config, deterministic=True)


def action_value(
    observation_spec: Specs, action_spec: Specs, config: NetworkConfig = NetworkConfig()
) -> Network:
    """A network whose outputs are the values of unit actions, [...].

    It reads steps that show a pair, (obs, unit action). Arguments and errors are those
    of `gaussian_policy`.
    """
    number = len(checked(observation_spec, action_spec, config).low)
    seen = (observation_spec, Box((number,), low=-1.0, high=1.0))
    features.check(seen, config)
    specs = Static(seen, action_spec)
    module = _ActionValue(specs, config)
    return features.as_network(module, partial(features.empty, config), specs)


def shown(steps: TimeStep, unit: Float[Array, "*B A"]) -> TimeStep:
    """What `action_value` reads."""
    return steps._replace(obs=(steps.obs, unit))


def as_actor(params: Params, num_actions: int) -> Params:
    """The greedy actor of either policy, or of `normalised_advantage`, as parameters of
    `actor_critic` with the same config, `policy="squashed"` (without bounds "gaussian")
    and `shared=False`, but for its critic.

    Its standard deviation is 0, so that whoever samples takes the greedy action too.
    """
    inner = params["params"]
    head = {
        "policy": inner["policy"][:, :num_actions],
        "policy_bias": inner["policy_bias"][:num_actions],
        "log_std": jnp.full(num_actions, -jnp.inf),
    }
    return {"params": {"actor": inner["actor"], "_Heads_0": head}}


def _policy(
    observation_spec: Specs,
    action_spec: Specs,
    config: NetworkConfig,
    *,
    deterministic: bool,
) -> Network:
    number = len(checked(observation_spec, action_spec, config).low)
    specs = Static(observation_spec, action_spec)
    module = _Policy(specs, config, number, deterministic)
    return features.as_network(module, partial(features.empty, config), specs)


def checked(
    observation_spec: Specs,
    action_spec: Specs,
    config: NetworkConfig,
    *,
    unbounded: bool = False,
) -> Units:
    """The units of actions of a network without memory, as `units_of`.

    Raises:
      ValueError: the config does not fit the specs.
      RefusedError: as `units_of`, or the config has memory.
    """
    units = units_of(action_spec, unbounded=unbounded)
    features.check(observation_spec, config)
    if config.memory != "none":
        raise RefusedError(
            f"network.memory must be none here, got {config.memory}: these agents learn"
            " from single transitions, for whose critics no memory was stored"
        )
    return units


class _Policy(nn.Module):
    specs: Static
    config: NetworkConfig
    num_actions: int
    deterministic: bool

    @nn.compact
    def __call__(self, carry, steps, acting=False):
        parts = (self.specs, self.config, carry, steps, acting)
        x, carry = features.read("actor", *parts)
        number = self.num_actions * (1 if self.deterministic else 2)
        outputs = _head(self, "policy", x, number, scale=0.01)
        mean = outputs[:, : self.num_actions]
        if self.deterministic:
            return features.over_time(jnp.tanh(mean), steps), carry
        log_std = jnp.clip(outputs[:, self.num_actions :], *LOG_STD)
        zeros = jnp.zeros_like(mean)
        policy = SquashedNormal(mean, log_std, zeros, zeros + 1.0)
        return features.over_time(policy, steps), carry


class _ActionValue(nn.Module):
    specs: Static
    config: NetworkConfig

    @nn.compact
    def __call__(self, carry, steps, acting=False):
        parts = (self.specs, self.config, carry, steps, acting)
        x, carry = features.read("critic", *parts)
        torso = features.chosen_torso(self.specs.observation, self.config.torso)
        if torso in ("shallow", "deep"):
            # There the action joins the image's features only behind their last layer.
            x = nn.relu(Linear(_JOINED)(x))
        values = _head(self, "value", x, 1, scale=1.0)[:, 0]
        return features.over_time(values, steps), carry


def _head(module: nn.Module, name: str, x: Array, number: int, scale: float) -> Array:
    """Outputs in float32, [N, number]."""
    kernel = module.param(name, orthogonal(scale), (x.shape[1], number))
    zeros = nn.initializers.zeros
    bias = module.param(f"{name}_bias", zeros, (number,), jnp.float32)
    return linear(x.astype(jnp.float32), kernel, bias)


def _over(x: Float[np.ndarray, " A"], like: Float[Array, "*B A"]) -> Array:
    """With the axes and the dtype of the other, for who forbids promotion."""
    return jnp.broadcast_to(jnp.asarray(x, like.dtype), like.shape)
