"""Policy and value networks for any observation and action, from one config."""

from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_par.distributions import Distribution
from jaxrl_par.masks import allowed
from jaxrl_par.networks import heads
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
    rows_of,
)
from jaxrl_par.networks.layers import linear, orthogonal
from jaxrl_par.networks.plain import plain
from jaxrl_par.types import Specs

__all__ = ["NetworkConfig", "actor_critic", "chosen_torso"]


def actor_critic(
    observation_spec: Specs, action_spec: Specs, config: NetworkConfig = NetworkConfig()
) -> Network:
    """A network whose outputs are (distribution of the action, value).

    Distribution leaves are [..., A], values [...]. The policy starts near uniform, or
    near mean 0 with standard deviation 1. Actions of several parts, and arrays of
    numbers, have the distributions of `jaxrl_par.joint`.

    Args:
      observation_spec: where it is `Masked`, or has such a part, what is not allowed
        has probability 0.

    Raises:
      ValueError: the config does not fit the specs.

    Sources: Andrychowicz et al., arXiv:2006.05990, section 3.2, for the initial scales;
    Espeholt et al., arXiv:1802.01561, figure 3, for shallow and deep.
    """
    check(observation_spec, config, masked=True)
    heads.refuse_actions(action_spec, allowed(observation_spec), config.policy)

    def start(num_envs: int):
        one = empty(config, num_envs)
        return one if config.shared or config.memory == "none" else (one, one)

    specs = Static(observation_spec, action_spec)
    network = as_network(_ActorCritic(specs, config), start, specs)
    return network._replace(plain=plain(observation_spec, action_spec, config))


def policy_network(
    observation_spec: Specs, action_spec: Specs, config: NetworkConfig = NetworkConfig()
) -> Network:
    """A network whose outputs are (distribution of the action, ()): no value.

    Args:
      config: `shared` is for actor-critics, and changes nothing here.

    Raises:
      ValueError: as `actor_critic`.
    """
    check(observation_spec, config, masked=True)
    heads.refuse_actions(action_spec, allowed(observation_spec), config.policy)
    specs = Static(observation_spec, action_spec)
    network = as_network(_Policy(specs, config), partial(empty, config), specs)
    alone = replace(config, shared=True)
    return network._replace(plain=plain(observation_spec, action_spec, alone))


class _ActorCritic(nn.Module):
    specs: Static
    config: NetworkConfig

    @nn.compact
    def __call__(self, carry, steps, acting=False):
        part = partial(
            read, specs=self.specs, config=self.config, steps=steps, acting=acting
        )
        made = _Heads(self.specs, self.config.policy)
        mask = rows_of(allowed(steps.obs))
        if self.config.shared:
            features, carry = part("torso", carry=carry)
            outputs = made(features, mask, features)
        else:
            old = carry if carry else ((), ())
            actor, actor_carry = part("actor", carry=old[0])
            critic, critic_carry = part("critic", carry=old[1])
            carry = (actor_carry, critic_carry) if carry else ()
            outputs = made(actor, mask, critic)
        return over_time(outputs, steps), carry


class _Policy(nn.Module):
    specs: Static
    config: NetworkConfig

    @nn.compact
    def __call__(self, carry, steps, acting=False):
        parts = (self.specs, self.config, carry, steps, acting)
        features, carry = read("torso", *parts)
        mask = rows_of(allowed(steps.obs))
        policy = _Heads(self.specs, self.config.policy)(features, mask)
        return over_time((policy, ()), steps), carry


class _Heads(nn.Module):
    """Features [N, D] to a distribution [N, A] of what the mask allows, and to values
    [N] if those of a critic are given."""

    specs: Static
    policy: str

    @nn.compact
    def __call__(self, actor, mask, critic=None):
        specs = self.specs
        num_outputs = heads.num_outputs(specs.action, allowed(specs.observation))
        zeros = nn.initializers.zeros
        shape = (actor.shape[1], num_outputs)
        policy = self.param("policy", orthogonal(0.01), shape)
        policy_bias = self.param("policy_bias", zeros, (num_outputs,), jnp.float32)
        if critic is None:
            outputs = linear(actor.astype(jnp.float32), policy, policy_bias)
            return self._distribution(outputs, mask)
        value = self.param("value", orthogonal(1.0), (critic.shape[1], 1))
        value_bias = self.param("value_bias", zeros, (1,), jnp.float32)
        shared = actor is critic
        actor, critic = actor.astype(jnp.float32), critic.astype(jnp.float32)
        if shared:
            # One product with all outputs: with few of them, each reads all features.
            kernel = jnp.concatenate([policy, value], axis=1)
            outputs = linear(actor, kernel, jnp.concatenate([policy_bias, value_bias]))
            return self._distribution(outputs[:, :-1], mask), outputs[:, -1]
        values = linear(critic, value, value_bias)[:, 0]
        return self._distribution(linear(actor, policy, policy_bias), mask), values

    def _distribution(self, outputs: Float[Array, "N K"], mask) -> Distribution:
        action, log_std = self.specs.action, None
        if number := heads.num_reals(action):
            zeros = nn.initializers.zeros
            log_std = self.param("log_std", zeros, (number,), jnp.float32)
        return heads.distribution(action, self.policy, outputs, log_std, mask)
