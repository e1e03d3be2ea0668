"""Tasks of MuJoCo Playground as streams, computed by MJX in JAX.

Playground's own default is another implementation, Warp, which needs a GPU. Those of
the DeepMind Control Suite have their models in the package. Models of robots and hands
are fetched from the network when such a task is first loaded: these tasks have no name
here, and `from_playground` adapts them.

Pictures would need MuJoCo's renderer and a display: there are none.
"""

from importlib import import_module
from typing import Any

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.raw import Raw, as_written, from_raw
from jaxrl_par.envs.suites import physics
from jaxrl_par.envs.suites.table import imported
from jaxrl_par.errors import unknown_name


def from_playground(
    env: Any,
    num_envs: int,
    episode_length: int | None = 1000,
    action_repeat: int = 1,
    name: str | None = None,
) -> Environment:
    """Copies of an environment of Playground's, or of one's own with its interface.

    Args:
      env: an `MjxEnv`, such as `registry.load` makes, without wrappers. On CPU its
        config needs `impl="jax"`.
      episode_length: time limit in steps of `env`; None for none. Like `action_repeat`
        it is in the config of a task, where only Playground's wrappers read it.
      action_repeat: steps of `env` that one action takes.

    Raises:
      RefusedError: a number is below 1, or a wrapper that resets, counts or batches is
        around `env`.
    """
    one = physics.raw(env, episode_length, action_repeat)
    return from_raw(one, num_envs, name or type(env).__name__)


@as_written
def raw(task: str, **params: Any) -> Raw:
    """One of the tasks of the DeepMind Control Suite, by its name in Playground.

    Args:
      params: entries of its config, `episode_length` and `action_repeat` among them.

    Raises:
      RefusedError: there is no such parameter, or a value is not allowed.
    """
    imported("playground")
    suite: Any = import_module("mujoco_playground").dm_control_suite
    config = suite.get_default_config(task)
    for unknown in params.keys() - config.keys():
        raise unknown_name(f"parameter of playground::{task}", unknown, config.keys())
    config.update({"impl": "jax"} | params)
    env = suite.load(task, config=config)
    return physics.raw(env, config.episode_length, config.action_repeat)
