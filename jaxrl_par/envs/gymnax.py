"""Environments with gymnax's interface as streams.

gymnax's own `step` resets in the step that ends an episode and so never shows the final
observation where a network would read it. Here `step_env` and `reset_env` are composed
into the stream of `Environment`; both are computed in each step, as in gymnax.

Some environments of gymnax take actions outside their own bounds, and pay for them.
Here they get the nearest one within.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.wrappers import clip_actions, episode_statistics
from jaxrl_par.errors import refuse
from jaxrl_par.types import Box, Discrete, MultiDiscrete, Spec, Specs, TimeStep

# gymnax 1.0.1 declares bounds that the observations of these exceed.
_WRONG_BOUNDS = {"GaussianBandit-misc", "MemoryChain-bsuite", "MetaMaze-misc"}


def as_written(function: Callable) -> Callable:
    """Lets gymnax's own code promote ranks and dtypes, where a user forbids it to
    everyone, and computes in 32 bits, for which alone some of it is written."""

    @wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        promoting = jax.numpy_rank_promotion("allow")
        with promoting, jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
            return function(*args, **options)

    return called


@as_written
def from_gymnax(
    env: Any, num_envs: int, params: Any = None, name: str | None = None
) -> Environment:
    """Copies of an environment object that has gymnax's interface.

    Args:
      env: may have a method `draw(state)` besides, for `Environment.draw`.
      params: its `EnvParams`, by default `env.default_params`.

    Raises:
      ValueError: `num_envs` or `max_steps_in_episode` is below 1.
    """
    params = env.default_params if params is None else params
    limit = int(params.max_steps_in_episode)
    refuse(num_envs=num_envs, max_steps_in_episode=limit)
    action_spec = _action_spec(env.action_space(params))
    strong = strong_dtypes(env, params)

    @as_written
    def reset(key):
        keys = jax.random.split(key, num_envs)
        obs, state = strong(jax.vmap(env.reset_env, (0, None))(keys, params))
        no, yes = jnp.zeros(num_envs, bool), jnp.ones(num_envs, bool)
        return (state, no), TimeStep(obs, first=yes, last=no)

    def step_one(env_state, action, key, fresh):
        state, was_last = env_state
        obs, state, reward, terminated, _ = env.step_env(key, state, action, params)
        terminated = terminated.astype(bool)
        last = ~was_last & (terminated | env.is_truncated(state, params))
        obs, state = jax.tree.map(
            lambda x, y: jnp.where(was_last, x, y), fresh, (obs, state)
        )
        reward = jnp.where(was_last, 0.0, reward.astype(jnp.float32))
        discount = (~(was_last | terminated)).astype(jnp.float32)
        obs, state = strong((obs, state))
        return (state, last), TimeStep(obs, was_last, last), reward, discount

    @as_written
    def step(env_state, action, key):
        step_keys, reset_keys = jax.random.split(key, (2, num_envs))
        fresh = jax.vmap(env.reset_env, (0, None))(reset_keys, params)
        # Otherwise XLA draws the random numbers again for each leaf that they enter.
        fresh = jax.lax.optimization_barrier(fresh)
        return jax.vmap(step_one)(env_state, action, step_keys, fresh)

    def draw(env_state, i):
        return env.draw(jax.tree.map(lambda x: np.asarray(x[i]), env_state[0]))

    made = Environment(
        reset=reset,
        step=step,
        num_envs=num_envs,
        observation_spec=_observation_spec(env, params),
        action_spec=action_spec,
        name=name or env.name,
        max_episode_steps=limit,
        draw=draw if hasattr(env, "draw") else None,
    )
    return episode_statistics(clip_actions(made))


def strong_dtypes(env: Any, params: Any):
    """A cast of (obs, state) to the dtypes that survive a step.

    gymnax's resets hold Python numbers. Weakly typed arrays change their type when they
    meet others, which a scan refuses; where reset and step disagree, the wider one
    holds both.
    """
    key = jax.random.key(0)
    action = jax.eval_shape(env.action_space(params).sample, key)
    fresh = jax.eval_shape(env.reset_env, key, params)
    stepped = jax.eval_shape(env.step_env, key, fresh[1], action, params)[:2]
    dtypes = jax.tree.map(
        lambda x, y: jnp.promote_types(x.dtype, y.dtype), fresh, stepped
    )
    return lambda tree: jax.tree.map(jax.lax.convert_element_type, tree, dtypes)


def _observation_spec(env: Any, params: Any) -> Specs:
    """The space's bounds with the shape and dtype that the environment really gives."""
    obs, _ = jax.eval_shape(env.reset_env, jax.random.key(0), params)
    space = env.observation_space(params)
    if hasattr(space, "n") or hasattr(space, "low"):
        spec = _spec(space)
        if not isinstance(spec, Box):
            return spec
        fits = spec.shape == obs.shape or np.ndim(spec.low) == np.ndim(spec.high) == 0
        right = fits and env.name not in _WRONG_BOUNDS
        bounds = {"low": spec.low, "high": spec.high} if right else {}
        return Box(obs.shape, np.dtype(obs.dtype), **bounds)
    return jax.tree.map(lambda x: Box(x.shape, np.dtype(x.dtype)), obs)


def _action_spec(space: Any) -> Specs:
    """As `_spec`, also of a dict or tuple of spaces."""
    inner = getattr(space, "spaces", None)
    if inner is None:
        return _spec(space)
    if isinstance(inner, dict):
        return {name: _action_spec(x) for name, x in inner.items()}
    return tuple(_action_spec(x) for x in inner)


def _spec(space: Any) -> Spec:
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if hasattr(space, "low"):
        low, high = np.asarray(space.low), np.asarray(space.high)
        return Box(tuple(space.shape), np.dtype(space.dtype), low=low, high=high)
    if hasattr(space, "nvec"):
        return MultiDiscrete(space.nvec)
    raise ValueError(
        f"a space of type {type(space).__name__} is not supported: use Discrete or Box"
    )
