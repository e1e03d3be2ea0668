"""Grid worlds of navix, which is MiniGrid in JAX, as streams.

navix resets in the step after an end, and loses the action of that step. Here its own
transition is stepped, without the reset.
"""

from importlib import import_module
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.raw import Raw, as_written, from_raw
from jaxrl_par.envs.suites.keys import words
from jaxrl_par.envs.suites.table import imported
from jaxrl_par.errors import unknown_name
from jaxrl_par.types import Box, Discrete

_TERMINATED = 2
"""navix's `StepType.TERMINATION`, which an end at the time limit has, too."""
_LARGEST = 10
"""Of the numbers that stand for a thing, its colour and its state. navix declares 8,
and shows the player as 10."""


def from_navix(env: Any, num_envs: int, name: str | None = None) -> Environment:
    """Copies of an environment of navix, or of one's own with its interface.

    Args:
      env: such as `navix.make` makes. Its `max_steps` are the time limit.

    Raises:
      RefusedError: `num_envs` is below 1.
    """
    return from_raw(_raw(env), num_envs, name or type(env).__name__)


@as_written
def raw(task: str, **params: Any) -> Raw:
    """One of navix's own, by its name there.

    Args:
      params: what its class is made from, such as `max_steps`, 100 by default, or
        `observation_fn=navix.observations.symbolic_first_person`.

    Raises:
      RefusedError: there is no such parameter.
    """
    navix = imported("navix")
    known = {*signature(navix.Environment.create).parameters} - {"kwargs"}
    for unknown in params.keys() - known:
        raise unknown_name(f"parameter of navix::{task}", unknown, known)
    return _raw(navix.make(task, **params))


@as_written
def _raw(env: Any) -> Raw:
    def reset(key):
        now = env.reset(words(key))
        return now, now.observation

    def step(now, action, key):
        # Its randomness is from the key in its state.
        now = env._step(now, action)
        # Else it may be at the limit, which the stream counts in the same way.
        ended = now.step_type == _TERMINATED
        return now, now.observation, now.reward, ended, False

    shown = jax.eval_shape(reset, jax.random.key(0))[1]
    return Raw(
        reset,
        step,
        observation_spec=_spec(env, shown),
        action_spec=Discrete(len(env.action_set)),
        max_episode_steps=int(env.max_steps),
        draw=_drawn,
    )


def _spec(env: Any, shown: Any) -> Box:
    """Numbers of things have bounds, pixels those of bytes."""
    observations: Any = import_module("navix.observations")
    of_pixels = (observations.rgb, observations.rgb_first_person)
    bounds = {} if env.observation_fn in of_pixels else {"low": 0, "high": _LARGEST}
    return Box(shown.shape, np.dtype(shown.dtype), **bounds)


def _drawn(now: Any) -> UInt8[np.ndarray, "H W 3"]:
    observations: Any = import_module("navix.observations")
    return np.asarray(observations.rgb(jax.tree.map(jnp.asarray, now.state)))
