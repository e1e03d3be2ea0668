"""What is between a simulator and a vector environment of Gymnasium that steps it.

Those write what simulators return into arrays of their own: 300 in an image becomes 44,
the text "False" true, and nobody behind them can see it. So it is looked at before, in
the process where the simulator is stepped. Nothing here imports JAX, which would take
seconds and hundreds of megabytes in each process.
"""

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

from jaxrl_par.envs.host import spaces
from jaxrl_par.envs.host.admission import (
    BadRowError,
    Observations,
    admitted_flag,
    admitted_results,
    admitted_reward,
    way_out,
)
from jaxrl_par.envs.host.failures import SimulatorError, raise_from

SIGNALS = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU),
)
"""As `training.interrupts`."""


class Admitted:
    """An environment with Gymnasium's single interface, whose results are admitted, in
    memory of their own and the dtypes of its spaces. All else is the environment's."""

    def __init__(self, env: Any, index: int, name: str):
        """`index`: its place among all, for errors."""
        self._env, self._index, self._name = env, index, name
        self._episode, self._length = -1, 0
        specs = spaces.observation_spec(env.observation_space, name)
        self._observations = Observations(env.observation_space, specs)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._env, attribute)

    def reset(self, **options: Any) -> tuple[Any, Any]:
        self._episode, self._length = self._episode + 1, 0
        obs, info = self._call("reset", **options)
        return self._observation(obs), info

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, Any]:
        self._length += 1
        obs, reward, terminated, truncated, info = self._call("step", action)
        index, where = self._index, self._where
        return (
            self._observation(obs),
            admitted_reward(reward, index, where),
            admitted_flag("terminated", terminated, index, where),
            admitted_flag("truncated", truncated, index, where),
            info,
        )

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            results = getattr(self._env, method)(*args, **kwargs)
        except BaseException as error:
            where = self._where(self._index)
            raise_from(error, f"in {where}{way_out(error, method)}")
        return admitted_results(results, method, self._where, self._index)

    def _observation(self, obs: Any) -> Any:
        row = self._observations.empty(1)
        self._observations.write(row, 0, obs, self._index, self._where)
        return self._observations.one(row)

    def _where(self, index: int | None) -> str:
        return (
            f"environment {index} of {self._name}, episode {self._episode}, step"
            f" {self._length}"
        )


def made(make_env: Callable[[], Any], index: int, name: str) -> Admitted:
    """A new environment; its errors say which."""
    try:
        return Admitted(make_env(), index, name)
    except BaseException as error:
        raise_from(error, f"in make of environment {index} of {name}")


def work(index: int, make_env: Any, pipe: Any, parent_pipe: Any, *rest: Any) -> None:
    """Gymnasium's worker, in a process that ends with its parent, which closes its
    pipe, or by a SIGTERM of its own.

    Errors of a simulator come to the parent with their place, and those of its
    constructor too, which Gymnasium leaves to whoever looks at the exit code.
    """
    from gymnasium.vector.async_vector_env import _async_worker

    os.setsid()
    for number in SIGNALS:
        # Those that came meanwhile are forgotten.
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        env = _Sent(make_env())
    except BaseException as error:
        told, (_, errors, _) = _sendable(error), rest
        errors.put((index, type(told), told, traceback.format_exc()))
        parent_pipe.close()
        pipe.recv()  # the question whether spaces agree
        pipe.send((None, False))
        return
    _async_worker(index, lambda: env, pipe, parent_pipe, *rest)


class _Sent:
    """An environment whose errors can be sent to another process."""

    def __init__(self, env: Any):
        self._env = env

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._env, attribute)

    def reset(self, **options: Any) -> Any:
        return self._sending(self._env.reset, **options)

    def step(self, action: Any) -> Any:
        return self._sending(self._env.step, action)

    def _sending(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except BaseException as error:
            raise _sendable(error) from error


def _sendable(error: BaseException) -> Exception:
    """The error in words, its place among them: notes are not sent, and classes of a
    simulator's own may not be known where it arrives."""
    if isinstance(error, BadRowError):
        return BadRowError(str(error))
    told = str(error)
    if not isinstance(error, SimulatorError):
        told = f"{type(error).__name__}: {told}"
    return SimulatorError(f"{told} ({', '.join(getattr(error, '__notes__', []))})")
