"""Tasks of XLand-MiniGrid as streams: its own, and those of MiniGrid.

What is seen is (tile, colour) of each cell in view. The limit of steps is read as the
truncation that it is. Rulesets of its benchmarks are downloaded by the suite itself:
who has a file of them adapts an environment with `from_xland`, and its parameters.

Source: Nikulin et al., arXiv:2312.12044.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.raw import Raw, as_written, from_raw
from jaxrl_par.envs.suites import table
from jaxrl_par.errors import RefusedError, told, unknown_name
from jaxrl_par.types import Box, Discrete, Specs

_TILES, _COLOURS = 13, 12


def from_xland(
    env: Any, num_envs: int, params: Any = None, name: str | None = None
) -> Environment:
    """Copies of a task that has XLand-MiniGrid's interface, without resetting wrappers.

    Args:
      params: its `EnvParams`, by default `env.default_params()`.

    Raises:
      RefusedError: `num_envs` is below 1, or `env` is no such task.
    """
    if not all(hasattr(env, x) for x in ("default_params", "reset", "num_actions")):
        kind = "an xminigrid Environment, the first of what xminigrid.make gives"
        raise RefusedError(f"env must be {kind}, got {told(env)}")
    params = env.default_params() if params is None else params
    return from_raw(adapted(env, params), num_envs, name or type(env).__name__)


def raw(task: str, **params: Any) -> Raw:
    """One task by its registered name; `params` are fields of its `EnvParams`."""
    xminigrid = table.imported("xland")
    _, defaults = as_written(xminigrid.make)(task)
    known = vars(defaults)
    for other in params.keys() - known.keys():
        raise unknown_name(f"parameter of xland::{task}", other, known)
    return adapted(*as_written(xminigrid.make)(task, **params))


@as_written
def adapted(env: Any, params: Any) -> Raw:
    """One task with its parameters."""

    def reset(key):
        start = env.reset(params, jax.random.key_data(key))
        return start, start.observation

    def step(now, action, key):
        del key  # its state has one
        after = env.step(params, now, action)
        over, ended = after.last(), after.discount == 0
        return after, after.observation, after.reward, over & ended, over & ~ended

    return Raw(
        reset=reset,
        step=step,
        observation_spec=_specs(reset),
        action_spec=Discrete(env.num_actions(params)),
        max_episode_steps=params.max_steps,
        draw=_drawing(env, params),
    )


def _specs(reset: Any) -> Specs:
    _, seen = jax.eval_shape(reset, jax.random.key(0))
    return jax.tree.map(_spec, seen)


def _spec(x: Any) -> Box:
    """Cells have as many tiles and colours as the suite knows; what wrappers make of
    them has no bounds."""
    shape, dtype = tuple(x.shape), np.dtype(x.dtype)
    cells = len(shape) == 3 and shape[-1] == 2 and dtype == np.uint8
    high = np.broadcast_to((_TILES - 1, _COLOURS - 1), shape) if cells else np.inf
    return Box(shape, dtype, low=0.0, high=high) if cells else Box(shape, dtype)


def _drawing(env: Any, params: Any) -> Any:
    if getattr(params, "render_mode", "") != "rgb_array":
        return None
    return lambda now: np.asarray(env.render(params, jax.tree.map(jnp.asarray, now)))
