"""Environments with gymnax's interface as streams.

gymnax's own `step` resets in the step that ends an episode and so never shows the final
observation where a network would read it. Here `step_env` and `reset_env` are what
`from_raw` makes a stream of; both are computed in each step, as in gymnax.

Some environments of gymnax take actions outside their own bounds, and pay for them.
Here they get the nearest one within.
"""

from typing import Any

import jax
import numpy as np

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.raw import Raw, as_written, from_raw
from jaxrl_par.envs.resets import Resets
from jaxrl_par.errors import refuse
from jaxrl_par.types import Box, Discrete, MultiDiscrete, Spec, Specs

# gymnax 1.0.1 declares bounds that the observations of these exceed.
_WRONG_BOUNDS = {"GaussianBandit-misc", "MemoryChain-bsuite", "MetaMaze-misc"}


def from_gymnax(
    env: Any,
    num_envs: int,
    params: Any = None,
    name: str | None = None,
    resets: Resets = Resets(),
) -> Environment:
    """Copies of an environment object that has gymnax's interface.

    Args:
      env: may have a method `draw(state)` besides, for `Environment.draw`.
      params: its `EnvParams`, by default `env.default_params`.
      resets: where episodes begin, as for `from_raw`.

    Raises:
      ValueError: `num_envs` or `max_steps_in_episode` is below 1, or `resets` does not
        fit.
    """
    params = env.default_params if params is None else params
    refuse(num_envs=num_envs, max_steps_in_episode=int(params.max_steps_in_episode))
    return from_raw(raw(env, params), num_envs, name or env.name, resets)


@as_written
def raw(env: Any, params: Any) -> Raw:
    """One environment that has gymnax's interface."""

    def reset(key):
        obs, state = env.reset_env(key, params)
        return state, obs

    def step(state, action, key):
        obs, state, reward, terminated, _ = env.step_env(key, state, action, params)
        return state, obs, reward, terminated, env.is_truncated(state, params)

    return Raw(
        reset=reset,
        step=step,
        observation_spec=_observation_spec(env, params),
        action_spec=_action_spec(env.action_space(params)),
        draw=getattr(env, "draw", None),
        own_limit=int(params.max_steps_in_episode),
    )


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
