"""A family of tasks: one environment, of which each task has its own parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.gymnax import from_gymnax
from jaxrl_par.types import PRNGKey


class Tasks(NamedTuple):
    """A distribution of tasks, which are arrays and no code.

    So tasks are drawn in a compiled program, vmapped over and shared by devices as
    other arrays are. Any environment will do whose parameters may be traced:

        Tasks(IMaze(9), lambda key: params.replace(reward_correct=uniform(key)))
    """

    env: Any
    """One environment with gymnax's interface."""
    draw: Callable[[PRNGKey], Any]
    """A task: parameters of the environment, as `env.default_params` are. Tasks may
    differ in all of them but the time limit."""

    def at(self, task: Any, num_envs: int) -> Environment:
        """Copies of the environment in one task, which may be traced.

        Raises:
          ValueError: as `from_gymnax`.
        """
        limit = self.env.default_params.max_steps_in_episode
        task = task.replace(max_steps_in_episode=limit)
        return from_gymnax(self.env, num_envs, task)
