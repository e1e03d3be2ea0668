"""Simulators whose steps take known times, for benchmarks of who waits for whom."""

import time
from typing import Any

import numpy as np

from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.types import Box, Discrete, TimeStep

EPISODE = 100


class Sleeping(HostEnvironment):
    """Environments that step together, and show nothing but zeros.

    While they sleep others have the interpreter, as if they were in processes.
    """

    action_spec = Discrete(4)
    name = "Sleeping"
    max_episode_steps = EPISODE

    def __init__(self, num_envs: int, observation_spec: Box, seconds: np.ndarray):
        """`seconds`: times of the steps, one after the other, again and again."""
        self.num_envs, self.observation_spec = num_envs, observation_spec
        shape = (num_envs, *observation_spec.shape)
        self._obs = np.zeros(shape, observation_spec.dtype)
        self._seconds = seconds
        self._at = self._steps = 0

    def reset(self) -> TimeStep:
        self._at = 0
        return self._show()

    def step(self, action: Any) -> tuple[TimeStep, Any, Any]:
        time.sleep(self._seconds[self._steps % len(self._seconds)])
        self._steps += 1
        was_last = self._at == EPISODE
        self._at = 0 if was_last else self._at + 1
        paid = np.full(self.num_envs, not was_last, np.float32)
        goes_on = np.full(self.num_envs, self._at not in (0, EPISODE), np.float32)
        return self._show(), paid, goes_on

    def close(self) -> None:
        """There is nothing to free."""

    def _show(self) -> TimeStep:
        first: Any = np.full(self.num_envs, self._at == 0)
        last: Any = np.full(self.num_envs, self._at == EPISODE)
        return TimeStep(self._obs, first, last)
