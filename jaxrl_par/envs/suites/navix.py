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
_LARGEST = 10.0
"""Of the numbers that stand for a thing, its colour and its state, where there are no
doors: one that is locked may have a state of -2, of which navix makes a byte, 254.
navix declares 8, and shows the player as 10."""


def from_navix(env: Any, num_envs: int, name: str | None = None) -> Environment:
    """Copies of an environment of navix, or of one's own with its interface.

    An episode that is terminated by a step that pays is a success.

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

    return Raw(
        reset,
        step,
        observation_spec=_spec(env, *jax.eval_shape(reset, jax.random.key(0))),
        action_spec=Discrete(len(env.action_set)),
        max_episode_steps=int(env.max_steps),
        draw=_drawn,
        told=lambda now: {"success": (now.step_type == _TERMINATED) & (now.reward > 0)},
    )


def _spec(env: Any, now: Any, shown: Any) -> Box:
    """Numbers of things have bounds, as far as they are known."""
    observations: Any = import_module("navix.observations")
    of_things = (observations.symbolic, observations.symbolic_first_person)
    known = env.observation_fn in of_things and "door" not in now.state.entities
    bounds = {"low": 0.0, "high": _LARGEST} if known else {}
    return Box(shown.shape, np.dtype(shown.dtype), **bounds)


def _drawn(now: Any) -> UInt8[np.ndarray, "H W 3"]:
    observations: Any = import_module("navix.observations")
    return np.asarray(observations.rgb(jax.tree.map(jnp.asarray, now.state)))
