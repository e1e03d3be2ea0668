"""Actions for checks: random ones that are allowed, and others."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxrl_par.envs import Environment
from jaxrl_par.masks import allowed, none_allowed
from jaxrl_par.networks import heads
from jaxrl_par.types import (
    Action,
    Discrete,
    MultiDiscrete,
    Obs,
    PRNGKey,
    Spec,
    Specs,
    TimeStep,
)


def random_action(env: Environment, obs: Obs, key: PRNGKey) -> Action:
    """Uniform, or normal where the action has no bounds. The same in all environments,
    but for what their masks exclude."""
    mask, spec, rows = allowed(obs), env.action_spec, env.num_envs
    if mask is None:
        leaves, tree = jax.tree.flatten(spec)
        keys = [key] if len(leaves) == 1 else jax.random.split(key, len(leaves))
        drawn = [_drawn(x, rows, k) for x, k in zip(leaves, keys, strict=True)]
        return tree.unflatten(drawn)
    outputs = jnp.zeros((rows, heads.num_outputs(spec, allowed(env.observation_spec))))
    log_std = jnp.zeros(heads.num_reals(spec))
    policy = heads.distribution(spec, "gaussian", outputs, log_std, mask)
    return jax.vmap(lambda row: row.sample(key))(policy)


def other_action(spec: Specs, action: Action) -> Action:
    """One that is as valid, masks aside, and differs."""
    return jax.tree.map(_other, spec, action)


def nothing_allowed(env: Environment, steps: TimeStep) -> Bool[Array, "T B"]:
    """Rows that are no `last` and have no action to choose."""
    mask = allowed(steps.obs)
    if mask is None:
        return jnp.zeros(steps.last.shape, bool)
    return ~steps.last & none_allowed(env.action_spec, mask)


def _drawn(spec: Spec, num_envs: int, key: PRNGKey) -> Array:
    if isinstance(spec, Discrete):
        action = jax.random.randint(key, spec.shape, 0, spec.num_values, spec.dtype)
    elif isinstance(spec, MultiDiscrete):
        action = jax.random.randint(key, spec.shape, 0, spec.nvec, spec.dtype)
    elif spec.bounded:
        uniform = jax.random.uniform(key, spec.shape)
        action = spec.low + uniform * (spec.high - spec.low)
    else:
        action = jax.random.normal(key, spec.shape)
    return jnp.broadcast_to(action.astype(spec.dtype), (num_envs, *spec.shape))


def _other(spec: Spec, action: Array) -> Array:
    if isinstance(spec, Discrete):
        return (action + 1) % spec.num_values
    if isinstance(spec, MultiDiscrete):
        return (action + 1) % jnp.broadcast_to(spec.nvec, action.shape)
    other = jnp.asarray(spec.low + spec.high - action if spec.bounded else -action)
    return other.astype(spec.dtype)
