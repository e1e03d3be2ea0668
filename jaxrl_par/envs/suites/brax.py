"""Environments of brax as streams: bodies, pushed by motors.

What they observe and pay is brax's. Its wrappers, which count to a limit, bring every
episode back to one cached first state and hide the final observation, are left out.

Pictures would need MuJoCo's renderer and a display: there are none.
"""

from importlib import import_module
from inspect import signature
from typing import Any

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.raw import Raw, as_written, from_raw
from jaxrl_par.envs.suites import physics
from jaxrl_par.envs.suites.table import imported
from jaxrl_par.errors import unknown_name

_OF_ALL = {"backend", "n_frames", "debug"}
"""Arguments of their common base, which some classes hide in `**kwargs`."""
_OURS = {"episode_length": 1000, "action_repeat": 1}
"""Arguments of brax's `create`, with its defaults."""


def from_brax(
    env: Any,
    num_envs: int,
    episode_length: int | None = 1000,
    action_repeat: int = 1,
    name: str | None = None,
) -> Environment:
    """Copies of an environment of brax's, or of one's own with its interface.

    Args:
      env: a `brax.envs.Env`, such as `brax.envs.get_environment` makes, without the
        wrappers that `brax.envs.create` puts around it.
      episode_length: time limit in steps of `env`, as brax counts; None for none.
      action_repeat: steps of `env` that one action takes.

    Raises:
      RefusedError: a number is below 1, or a wrapper that resets, counts or batches is
        around `env`.
    """
    one = physics.raw(env, episode_length, action_repeat)
    return from_raw(one, num_envs, name or type(env).__name__)


@as_written
def raw(task: str, **params: Any) -> Raw:
    """One of brax's own, by its name there.

    Args:
      params: `episode_length` and `action_repeat`, as of `from_brax`, and arguments of
        its class, such as `backend="positional"`, which compiles faster than others.

    Raises:
      RefusedError: there is no such parameter, or a value is not allowed.
    """
    imported("brax")
    envs: Any = import_module("brax.envs")
    known = {*signature(envs._envs[task].__init__).parameters} | _OF_ALL | {*_OURS}
    known -= {"self", "kwargs"}
    for unknown in params.keys() - known:
        raise unknown_name(f"parameter of brax::{task}", unknown, known)
    ours = {x: params.pop(x, default) for x, default in _OURS.items()}
    return physics.raw(envs.get_environment(task, **params), **ours)
