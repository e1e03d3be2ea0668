"""Games of octax, an emulator of CHIP-8, as streams.

What is seen are the screens of the frames in a step, [frames, 64, 32] bits. A game
begins in the same state always; its own random numbers differ. The limit of steps is
read as the truncation that it is.

Source: Radji et al., arXiv:2510.01764.
"""

from importlib import import_module
from inspect import signature
from typing import Any

import jax
import numpy as np

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.raw import Raw, as_written, from_raw
from jaxrl_par.envs.suites import table
from jaxrl_par.errors import RefusedError, told, unknown_name
from jaxrl_par.types import Box, Discrete


def from_octax(env: Any, num_envs: int, name: str | None = None) -> Environment:
    """Copies of a game that has octax's interface, without its wrappers.

    Raises:
      RefusedError: `num_envs` is below 1, or `env` is no such game.
    """
    if not all(
        hasattr(env, x) for x in ("reset", "step", "max_num_steps_per_episodes")
    ):
        kind = "an OctaxEnv, the first of what create_environment gives"
        raise RefusedError(f"env must be {kind}, got {told(env)}")
    return from_raw(adapted(env), num_envs, name or type(env).__name__)


def raw(task: str, **params: Any) -> Raw:
    """One game by the name of its module, and of its level if it has some; `params`
    are arguments of `OctaxEnv` that the game does not fix."""
    table.imported("octax")
    known = {*signature(import_module("octax.env").OctaxEnv).parameters}
    for other in params.keys() - known:
        raise unknown_name(f"parameter of octax::{task}", other, known)
    # It needs no level: asked for one, it keeps that for whoever makes the game next.
    environments = import_module("octax.environments")
    env, _ = as_written(environments.create_environment)(
        task, render_mode="rgb_array", **params
    )
    return adapted(env)


@as_written
def adapted(env: Any) -> Raw:
    """One game."""

    def reset(key):
        state, obs, _ = env.reset(jax.random.key_data(key))
        return state, obs

    def step(state, action, key):
        del key  # its state has one
        state, obs, reward, terminated, truncated, _ = env.step(state, action)
        return state, obs, reward, terminated, truncated

    _, seen = jax.eval_shape(reset, jax.random.key(0))
    return Raw(
        reset=reset,
        step=step,
        observation_spec=Box(seen.shape, np.dtype(seen.dtype), 0.0, 1.0),
        action_spec=Discrete(env.num_actions),
        max_episode_steps=int(env.max_num_steps_per_episodes),
        draw=env.render if env.render_mode == "rgb_array" else None,
    )
