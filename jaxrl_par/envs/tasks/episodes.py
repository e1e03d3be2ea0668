"""A family of tasks as one environment: each episode is in a task of its own."""

from typing import Any, NamedTuple

import jax

from jaxrl_par.envs.base import Environment
from jaxrl_par.envs.gymnax import from_gymnax
from jaxrl_par.envs.tasks.base import Tasks
from jaxrl_par.types import EnvState, PRNGKey


def episodes(tasks: Tasks, num_envs: int) -> Environment:
    """Environments that draw a task where an episode begins, and do not show it.

    Its return is what a policy that does not adapt gets.

    Raises:
      ValueError: as `from_gymnax`.
    """
    return from_gymnax(_Drawn(tasks), num_envs)


class _State(NamedTuple):
    task: Any
    inner: EnvState


class _Drawn:
    """The environment with its task as a part of the state, with gymnax's interface."""

    def __init__(self, tasks: Tasks):
        env = self._env = tasks.env
        self._draw, self.name = tasks.draw, env.name
        self.default_params = env.default_params
        self.action_space = env.action_space
        self.observation_space = env.observation_space

    def reset_env(self, key: PRNGKey, params: Any) -> tuple[Any, _State]:
        task_key, key = jax.random.split(key)
        task = self._draw(task_key)
        task = task.replace(max_steps_in_episode=params.max_steps_in_episode)
        obs, inner = self._env.reset_env(key, task)
        return obs, _State(task, inner)

    def step_env(
        self, key: PRNGKey, state: _State, action: Any, params: Any
    ) -> tuple[Any, ...]:
        obs, inner, *others = self._env.step_env(key, state.inner, action, state.task)
        return obs, _State(state.task, inner), *others

    def is_truncated(self, state: _State, params: Any) -> Any:
        return self._env.is_truncated(state.inner, state.task)
