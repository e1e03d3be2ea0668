"""Unrolls of environments, filled row by row, with what is admitted: see `admission`.

Shapes and dtypes are checked with each row, because writing them into a buffer would
cast in silence; values are checked over a whole unroll, where it costs least.
"""

from typing import Any

import numpy as np

from jaxrl_par import trees
from jaxrl_par.envs.host.admission import (
    BadRowError,
    admit_array,
    check_values,
    refuse_nan,
    refuse_where,
)
from jaxrl_par.envs.host.rows import time_step
from jaxrl_par.masks import allowed, none_allowed
from jaxrl_par.specs import Box, Spec, Specs
from jaxrl_par.stream import Carry, Extras, TimeStep, Trajectory


class UnrollBuffer:
    """Buffers of an unroll of T steps in B environments, filled row by row.

    New ones are made for each unroll: on CPU a device array may share their memory.
    """

    def __init__(self, specs: Specs, action_spec: Specs, length: int, num_envs: int):
        def empty(rows: int, spec: Spec) -> np.ndarray:
            return np.empty((rows, num_envs, *spec.shape), spec.dtype)

        self._specs = trees.leaves(specs)
        self._paths = [f"observation{path}" for path in trees.paths(specs)]
        self._tree = trees.map_leaves(lambda spec: empty(length + 1, spec), specs)
        self._obs = trees.leaves(self._tree)
        flag, number = Box((), np.dtype(bool)), Box(())
        self._first, self._last = empty(length + 1, flag), empty(length + 1, flag)
        self.reward, self.discount = empty(length, number), empty(length, number)
        self.action: Any = trees.map_leaves(
            lambda spec: empty(length, spec), action_spec
        )
        self._action_spec = action_spec
        self._of_actions = [f"action{path}" for path in trees.paths(action_spec)]

    def write_step(self, t: int, step: TimeStep) -> None:
        """Writes observation and flags of row t.

        Raises:
          BadRowError: another structure, shape or dtype than the specs say.
        """
        given: list[Any] = []
        try:
            trees.map_leaves(lambda _, leaf: given.append(leaf), self._tree, step.obs)
        except ValueError as error:
            found, spec = trees.structure(step.obs), trees.structure(self._tree)
            raise BadRowError(f"observation is {found}, its spec {spec}") from error
        for path, buffer, leaf in zip(self._paths, self._obs, given, strict=True):
            admit_array(path, buffer[t], leaf)
        admit_array("first", self._first[t], step.first)
        admit_array("last", self._last[t], step.last)

    def write_reward(self, t: int, reward: np.ndarray, discount: np.ndarray) -> None:
        """Writes the reward and discount that the action of row t brought.

        Raises:
          BadRowError: another shape or dtype than float32 [B].
        """
        admit_array("reward", self.reward[t], reward)
        admit_array("discount", self.discount[t], discount)

    def write_action(self, t: int, action: Any) -> Any:
        """Writes what was done in row t, and returns it.

        Raises:
          BadRowError: another structure, shape or dtype than the spec says, or NaN: no
            simulator must get it.
        """
        names = iter(self._of_actions)

        def write(place: np.ndarray, given: Any) -> np.ndarray:
            given = np.asarray(given)
            admit_array(next(names), place[t], given)
            if given.dtype.kind == "f":
                refuse_nan(given, lambda index: f"environment {index} in row {t}")
            return given

        try:
            return trees.map_leaves(write, self.action, action)
        except BadRowError:
            raise
        except ValueError as error:
            found, spec = trees.structure(action), trees.structure(self.action)
            raise BadRowError(f"action is {found}, its spec {spec}") from error

    def row(self, t: int) -> TimeStep:
        """Row t, as views of the buffers."""
        return trees.map_leaves(lambda x: x[t], self.steps())

    def steps(self) -> TimeStep:
        """Observations and flags, leaves [T+1, B, ...]."""
        return time_step(self._tree, self._first, self._last)

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
            check_values(path, spec, leaf, check_bounds)
        self._check_masks()
        paid = {"reward": self.reward, "discount": self.discount}
        for name, x in paid.items():
            refuse_where(name, x, ~np.isfinite(x), "is not finite")
        x = self.discount
        refuse_where("discount", x, (x < 0) | (x > 1), "is not in [0, 1]")
        before, after = self._last[:-1], self._first[1:]
        refuse_where(
            "first", after, before & ~after, "must follow the end of an episode"
        )
        refuse_where(
            "first", after, after & ~before, "comes in the middle of an episode"
        )
        for name, x in paid.items():
            refuse_where(
                name, x, before & (x != 0), "must be 0 after the end of an episode"
            )

    def _check_masks(self) -> None:
        mask = allowed(self._tree)
        if mask is None:
            return
        found = np.argwhere(none_allowed(self._action_spec, mask) & ~self._last)
        if len(found):
            row, index = map(int, found[0])
            error = BadRowError(
                f"the mask of environment {index} in row {row} allows no action, and"
                " the row is not last"
            )
            error.row = row
            raise error
