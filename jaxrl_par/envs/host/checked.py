"""Simulators whose rows are checked one by one, for who keeps no unrolls."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array, Key

from jaxrl_par.envs.host.base import HostEnvironment, HostRow
from jaxrl_par.envs.host.failures import raise_from
from jaxrl_par.envs.host.unrolls import UnrollBuffer
from jaxrl_par.stream import Metrics, TimeStep


def checked(env: HostEnvironment) -> HostEnvironment:
    """The same environments, which refuse what actors refuse, in each step.

    Bounds of observations are left alone. What `reset` shows is looked at in the first
    step.

    Raises:
      BadRowError: in `step`, with a note that says which step it was.
      SimulatorError: in place of what would end the process.
    """
    return _Checked(env)


class _Checked(HostEnvironment):
    def __init__(self, env: HostEnvironment):
        self._env, self._t = env, 0
        self._describe(env)
        self._rows = UnrollBuffer(
            env.observation_spec, env.action_spec, 1, env.num_envs
        )

    def reset(self) -> TimeStep:
        self._t = 0
        return self._told(self._reset)

    def step(self, action: Any) -> HostRow:
        self._t += 1
        return self._told(lambda: self._step(action))

    def close(self) -> None:
        self._env.close()

    def take_info(self, lanes: np.ndarray | None = None) -> Metrics:
        return self._env.take_info(lanes)

    def render(self) -> np.ndarray | None:
        return self._env.render()

    def plan(self, keys: Key[Array, " T"]) -> None:
        self._env.plan(keys)

    def snapshot(self) -> Any:
        return self._env.snapshot()

    def restore(self, snapshot: Any) -> TimeStep:
        return self._env.restore(snapshot)

    def _reset(self) -> TimeStep:
        self._rows.write_step(1, self._env.reset())
        return self._rows.row(1)

    def _step(self, action: Any) -> HostRow:
        rows = self._rows
        rows.write_step(0, rows.row(1))
        row = self._env.step(rows.write_action(0, action))
        rows.write_step(1, row[0])
        rows.write_reward(0, *row[1:])
        rows.check(check_bounds=False)
        return rows.row(1), rows.reward[0], rows.discount[0]

    def _told(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except BaseException as error:
            where = f"step {self._t}, whose results are row 1" if self._t else "reset"
            raise_from(error, f"in {where} of {self.name}")
