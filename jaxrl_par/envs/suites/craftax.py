"""Craftax and Craftax-Classic as streams: worlds to dig, build and survive in.

Its `done` is an end or the time limit. The rule for it takes the limit as a parameter:
without one it says what an end is, and the stream counts the limit.

On CPU they are slow to compile, in minutes. Those that show pixels make their textures
at first use, and write them into the folder of the package.
"""

from dataclasses import fields
from importlib import import_module
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jaxrl_par.envs import drawing
from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.raw import Raw, as_written, from_raw
from jaxrl_par.envs.suites.keys import words
from jaxrl_par.envs.suites.table import imported
from jaxrl_par.errors import unknown_name
from jaxrl_par.types import Box, Discrete

_NEVER = 2**31 - 1
"""A time limit that no episode reaches."""
_COLOURS = {
    "GRASS": (120, 170, 80),
    "FIRE_GRASS": (150, 90, 60),
    "ICE_GRASS": (200, 225, 235),
    "WATER": (70, 120, 200),
    "LAVA": (230, 90, 30),
    "SAND": (225, 210, 150),
    "PATH": (190, 175, 160),
    "TREE": (40, 95, 45),
    "STONE": (125, 125, 125),
    "WALL": (60, 60, 66),
    "COAL": (35, 35, 35),
    "IRON": (215, 165, 120),
    "DIAMOND": (150, 235, 235),
    "SAPPHIRE": (40, 60, 220),
    "RUBY": (210, 30, 70),
    "CHEST": (150, 95, 40),
    "WOOD": (150, 110, 60),
    "CRAFTING_TABLE": (170, 120, 50),
    "FURNACE": (90, 80, 80),
    "PLANT": (90, 220, 90),
    "RIPE_PLANT": (240, 240, 90),
}
"""Of blocks; all others are darkness."""
_MOB = (130, 30, 110)


def from_craftax(
    env: Any,
    num_envs: int,
    params: Any = None,
    name: str | None = None,
) -> Environment:
    """Copies of an environment of Craftax, or of one's own that is derived from one.

    Args:
      env: with or without its automatic reset, which is never called.
      params: its `EnvParams`, by default `env.default_params`; their `max_timesteps`
        are the time limit.

    Raises:
      RefusedError: `num_envs` or the time limit is below 1.
    """
    params = env.default_params if params is None else params
    return from_raw(_raw(env, params), num_envs, name or env.name)


@as_written
def raw(task: str, **params: Any) -> Raw:
    """One of Craftax's own, by its name there.

    Args:
      params: fields of its `EnvParams` and of its `StaticEnvParams`.

    Raises:
      RefusedError: there is no such parameter, or a value is not allowed.
    """
    imported("craftax")
    makers = import_module("craftax.craftax_env")
    env: Any = makers.make_craftax_env_from_name(task, auto_reset=False)
    usual, static = env.default_params, env.default_static_params()
    known = {x.name: part for part in (usual, static) for x in fields(part)}
    for unknown in params.keys() - known.keys():
        raise unknown_name(f"parameter of craftax::{task}", unknown, known)
    own, fixed = (
        {x: value for x, value in params.items() if known[x] is part}
        for part in (usual, static)
    )
    env = type(env)(static.replace(**fixed)) if fixed else env
    return _raw(env, usual.replace(**own))


@as_written
def _raw(env: Any, params: Any) -> Raw:
    endless = params.replace(max_timesteps=_NEVER)
    constants = _constants(env)

    def reset(key):
        obs, state = env.reset_env(words(key), endless)
        return state, obs

    def step(state, action, key):
        obs, state, reward, ended, _ = env.step_env(words(key), state, action, endless)
        return state, obs, reward, ended, False

    def told(state):
        found = state.achievements.astype(jnp.float32)
        kinds = constants.Achievement
        each = {f"achieved_{x.name.lower()}": found[x.value] for x in kinds}
        return {"achievements": found.sum()} | each

    shown = jax.eval_shape(reset, jax.random.key(0))[1]
    return Raw(
        reset,
        step,
        observation_spec=Box(shown.shape, np.dtype(shown.dtype)),
        action_spec=Discrete(int(env.num_actions)),
        max_episode_steps=int(params.max_timesteps),
        draw=lambda state: _drawn(state, constants),
        told=told,
    )


def _constants(env: Any) -> ModuleType:
    """Those of Craftax or of Craftax-Classic."""
    modules = (x.__module__.rpartition(".envs.")[0] for x in type(env).__mro__)
    return import_module(f"{next(filter(None, modules))}.constants")


def _drawn(state: Any, constants: ModuleType) -> UInt8[np.ndarray, "H W 3"]:
    """The map of the level where the player is, with what moves on it."""
    blocks, mobs = state.map, state.mob_map
    if blocks.ndim == 3:
        blocks, mobs = (x[int(state.player_level)] for x in (blocks, mobs))
    colours = np.zeros((len(constants.BlockType), 3), np.uint8)
    for block in constants.BlockType:
        colours[block.value] = _COLOURS.get(block.name, (20, 20, 28))
    picture = colours[blocks]
    picture[mobs > 0] = _MOB
    row, column = map(int, state.player_position)
    picture[row, column] = drawing.MARK
    return drawing.enlarge(picture)
