"""The border between simulators and learning: nothing bad gets across.

A NaN that reaches a network is found hours later, in the wrong place. Here it is
refused with the environment, field and step where it came up. Shapes and dtypes are
checked with each row, because writing them into a buffer would cast in silence; values
are checked over a whole unroll, where it costs least.
"""

from typing import Any

import jax
import numpy as np

from jaxrl_par.envs.host.rows import time_step
from jaxrl_par.types import (
    Box,
    Carry,
    Discrete,
    Extras,
    Spec,
    Specs,
    TimeStep,
    Trajectory,
)


class BadRowError(ValueError):
    """An environment gave something that its specs exclude."""

    row: int | None = None
    """Row of the unroll, where it was found only at the end of it."""


class UnrollBuffer:
    """Buffers of an unroll of T steps in B environments, filled row by row.

    New ones are made for each unroll: on CPU a device array may share their memory.
    """

    def __init__(self, specs: Specs, action_spec: Spec, length: int, num_envs: int):
        def empty(rows: int, spec: Spec) -> np.ndarray:
            return np.empty((rows, num_envs, *spec.shape), spec.dtype)

        leaves, self._tree = jax.tree.flatten_with_path(
            specs, is_leaf=lambda x: isinstance(x, Spec)
        )
        self._specs = [spec for _, spec in leaves]
        self._paths = [f"observation{jax.tree_util.keystr(path)}" for path, _ in leaves]
        self._obs = [empty(length + 1, spec) for spec in self._specs]
        flag, number = Box((), np.dtype(bool)), Box(())
        self._first, self._last = empty(length + 1, flag), empty(length + 1, flag)
        self.reward, self.discount = empty(length, number), empty(length, number)
        self.action = empty(length, action_spec)

    def write_step(self, t: int, step: TimeStep) -> None:
        """Writes observation and flags of row t.

        Raises:
          BadRowError: another structure, shape or dtype than the specs say.
        """
        leaves, tree = jax.tree.flatten(step.obs)
        if tree != self._tree:
            raise BadRowError(f"observation is {tree}, its spec {self._tree}")
        for path, buffer, leaf in zip(self._paths, self._obs, leaves, strict=True):
            _write(path, buffer[t], leaf)
        _write("first", self._first[t], step.first)
        _write("last", self._last[t], step.last)

    def write_reward(self, t: int, reward: np.ndarray, discount: np.ndarray) -> None:
        """Writes the reward and discount that the action of row t brought.

        Raises:
          BadRowError: another shape or dtype than float32 [B].
        """
        _write("reward", self.reward[t], reward)
        _write("discount", self.discount[t], discount)

    def row(self, t: int) -> TimeStep:
        """Row t, as views of the buffers."""
        return jax.tree.map(lambda x: x[t], self.steps())

    def steps(self) -> TimeStep:
        """Observations and flags, leaves [T+1, B, ...]."""
        obs = jax.tree.unflatten(self._tree, self._obs)
        return time_step(obs, self._first, self._last)

    def trajectory(self, extras: Extras, carry: Carry) -> Trajectory:
        """All rows, with what the agent left and its memory before the first row."""
        reward: Any = self.reward
        discount: Any = self.discount
        return Trajectory(self.steps(), self.action, reward, discount, extras, carry)

    def check(self, check_bounds: bool = True) -> None:
        """Looks at all values of the unroll.

        Args:
          check_bounds: observations must be within the bounds of their specs.

        Raises:
          BadRowError: names the field, the environment and the row; rows count from the
            start of the unroll.
        """
        for path, spec, leaf in zip(self._paths, self._specs, self._obs, strict=True):
            _check_values(path, spec, leaf, check_bounds)
        paid = {"reward": self.reward, "discount": self.discount}
        for name, x in paid.items():
            _refuse(name, x, ~np.isfinite(x), "is not finite")
        x = self.discount
        _refuse("discount", x, (x < 0) | (x > 1), "is not in [0, 1]")
        before, after = self._last[:-1], self._first[1:]
        _refuse("first", after, before & ~after, "must follow the end of an episode")
        _refuse("first", after, after & ~before, "comes in the middle of an episode")
        for name, x in paid.items():
            _refuse(name, x, before & (x != 0), "must be 0 after the end of an episode")


def _write(name: str, place: np.ndarray, given: Any) -> None:
    """Refuses what would be cast."""
    if not isinstance(given, np.ndarray):
        raise BadRowError(f"{name} is a {type(given).__name__}, not a numpy array")
    for what in ("shape", "dtype"):
        value, expected = getattr(given, what), getattr(place, what)
        if value != expected:
            raise BadRowError(f"{name} has {what} {value}, not {expected}")
    place[...] = given


def _check_values(name: str, spec: Spec, x: np.ndarray, check_bounds: bool) -> None:
    if isinstance(spec, Discrete):
        outside = (x < 0) | (x >= spec.num_values)
        _refuse(name, x, outside, f"is not in 0 .. {spec.num_values - 1}")
        return
    if np.issubdtype(x.dtype, np.inexact):
        _refuse(name, x, ~np.isfinite(x), "is not finite")
    if check_bounds and _limits(spec):
        outside = (x < spec.low) | (x > spec.high)
        _refuse(name, x, outside, f"is outside [{spec.low}, {spec.high}]")


def _limits(spec: Box) -> bool:
    """Whether the bounds exclude any value that the dtype has."""
    if spec.dtype == np.bool_:
        return False
    if np.issubdtype(spec.dtype, np.integer):
        info = np.iinfo(spec.dtype)
        return bool(np.any(spec.low > info.min) or np.any(spec.high < info.max))
    return bool(np.any(np.isfinite(spec.low)) or np.any(np.isfinite(spec.high)))


def _refuse(name: str, x: np.ndarray, bad: np.ndarray, why: str) -> None:
    """Raises for the first bad element of x [rows, B, ...]."""
    if not bad.any():
        return
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    element = f", element {list(index[2:])}" if index[2:] else ""
    error = BadRowError(
        f"{name} of environment {index[1]} in row {index[0]}{element} {why}: {x[index]}"
    )
    error.row = index[0]
    raise error
