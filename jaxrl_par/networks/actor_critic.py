"""Policy and value networks for any observation and action, from one config."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrl_par.distributions import (
    Categorical,
    DiagNormal,
    Distribution,
    SquashedNormal,
)
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.features import (
    NetworkConfig,
    Static,
    as_network,
    check,
    chosen_torso,
    empty,
    over_time,
    read,
)
from jaxrl_par.networks.layers import linear, orthogonal
from jaxrl_par.networks.plain import plain
from jaxrl_par.types import Box, Discrete, Spec, Specs

__all__ = ["NetworkConfig", "actor_critic", "chosen_torso"]


def actor_critic(
    observation_spec: Specs, action_spec: Spec, config: NetworkConfig = NetworkConfig()
) -> Network:
    """A network whose outputs are (distribution of the action, value).

    Distribution leaves are [..., A], values [...]. The policy starts near uniform, or
    near mean 0 with standard deviation 1.

    Raises:
      ValueError: the config does not fit the specs.

    Sources: Andrychowicz et al., arXiv:2006.05990, section 3.2, for the initial scales;
    Espeholt et al., arXiv:1802.01561, figure 3, for shallow and deep.
    """
    check(observation_spec, config)
    _refuse_actions(action_spec, config)

    def start(num_envs: int):
        one = empty(config, num_envs)
        return one if config.shared or config.memory == "none" else (one, one)

    specs = Static(observation_spec, action_spec)
    network = as_network(_ActorCritic(specs, config), start, specs)
    return network._replace(plain=plain(observation_spec, action_spec, config))


def policy_network(
    observation_spec: Specs, action_spec: Spec, config: NetworkConfig = NetworkConfig()
) -> Network:
    """A network whose outputs are (distribution of the action, ()): no value.

    Args:
      config: `shared` is for actor-critics, and changes nothing here.

    Raises:
      ValueError: as `actor_critic`.
    """
    check(observation_spec, config)
    _refuse_actions(action_spec, config)
    specs = Static(observation_spec, action_spec)
    return as_network(_Policy(specs, config), partial(empty, config), specs)


def _refuse_actions(action_spec: Spec, config: NetworkConfig) -> None:
    if config.policy == "squashed" and isinstance(action_spec, Box):
        low, high = action_spec.inner
        with np.errstate(over="ignore"):
            width = high - low
        if not np.all(np.isfinite(width) & (width > 0)):
            raise ValueError(
                "a squashed policy needs a lower and a higher bound for every action,"
                f" whose distance is finite in float32, got {action_spec}"
            )
    elif not isinstance(action_spec, Box | Discrete):
        raise ValueError(f"actions must be Box or Discrete, not {action_spec!r}")
    if len(action_spec.shape) != isinstance(action_spec, Box):
        raise ValueError(
            "an action is one integer or a vector of numbers, not an array of shape"
            f" {action_spec.shape}"
        )
    if isinstance(action_spec, Box) and not np.issubdtype(
        action_spec.dtype, np.floating
    ):
        raise RefusedError(
            f"policies choose real numbers, and actions are {action_spec}: make the"
            " environment take floats and round them, or one Discrete action in place"
            " of the integers (gymnasium.wrappers.TransformAction does either)"
        )


class _ActorCritic(nn.Module):
    specs: Static
    config: NetworkConfig

    @nn.compact
    def __call__(self, carry, steps, acting=False):
        part = partial(
            read, specs=self.specs, config=self.config, steps=steps, acting=acting
        )
        heads = _Heads(self.specs.action, self.config.policy)
        if self.config.shared:
            features, carry = part("torso", carry=carry)
            outputs = heads(features, features)
        else:
            old = carry if carry else ((), ())
            actor, actor_carry = part("actor", carry=old[0])
            critic, critic_carry = part("critic", carry=old[1])
            carry = (actor_carry, critic_carry) if carry else ()
            outputs = heads(actor, critic)
        return over_time(outputs, steps), carry


class _Policy(nn.Module):
    specs: Static
    config: NetworkConfig

    @nn.compact
    def __call__(self, carry, steps, acting=False):
        parts = (self.specs, self.config, carry, steps, acting)
        features, carry = read("torso", *parts)
        policy = _Heads(self.specs.action, self.config.policy)(features)
        return over_time((policy, ()), steps), carry


class _Heads(nn.Module):
    """Features [N, D] to a distribution [N, A], and to values [N] if those of a critic
    are given."""

    action: Spec
    policy: str

    @nn.compact
    def __call__(self, actor, critic=None):
        if isinstance(self.action, Discrete):
            num_outputs = self.action.num_values
        else:
            (num_outputs,) = self.action.shape
        zeros = nn.initializers.zeros
        shape = (actor.shape[1], num_outputs)
        policy = self.param("policy", orthogonal(0.01), shape)
        policy_bias = self.param("policy_bias", zeros, (num_outputs,), jnp.float32)
        if critic is None:
            return self._distribution(
                linear(actor.astype(jnp.float32), policy, policy_bias)
            )
        value = self.param("value", orthogonal(1.0), (critic.shape[1], 1))
        value_bias = self.param("value_bias", zeros, (1,), jnp.float32)
        shared = actor is critic
        actor, critic = actor.astype(jnp.float32), critic.astype(jnp.float32)
        if shared:
            # One product with all outputs: with few of them, each reads all features.
            kernel = jnp.concatenate([policy, value], axis=1)
            outputs = linear(actor, kernel, jnp.concatenate([policy_bias, value_bias]))
            return self._distribution(outputs[:, :-1]), outputs[:, -1]
        values = linear(critic, value, value_bias)[:, 0]
        return self._distribution(linear(actor, policy, policy_bias)), values

    def _distribution(self, outputs: Float[Array, "N A"]) -> Distribution:
        if isinstance(self.action, Discrete):
            return Categorical(outputs)
        zeros = nn.initializers.zeros
        mean = outputs
        log_std = self.param("log_std", zeros, (outputs.shape[1],), jnp.float32)
        log_std = jnp.broadcast_to(log_std, mean.shape)
        if self.policy == "gaussian":
            return DiagNormal(mean, log_std)
        low, high = (jnp.broadcast_to(x, mean.shape) for x in self.action.inner)
        # A sum of bounds may be too large for float32, where their distance is not.
        return SquashedNormal(mean, log_std, low / 2 + high / 2, (high - low) / 2)
