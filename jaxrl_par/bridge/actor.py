"""An actor that acts by JAX, in environments of its own."""

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_par.bridge.acting import Acting, count_of
from jaxrl_par.bridge.stepping import SteppingActor
from jaxrl_par.bridge.unrolled import MakeEnv
from jaxrl_par.types import Carry, Params, TimeStep, Trajectory


class _Now(NamedTuple):
    """An unroll in progress."""

    params: Params
    version: int
    keys: Any
    carry: Carry
    """Before the first row."""


class Actor(SteppingActor):
    """Acts with the compiled functions that all actors share."""

    def __init__(
        self, index: int, make_env: MakeEnv, acting: Acting, *arguments: Any, **options
    ):
        """`arguments`, `options`: further ones of `SteppingActor`."""
        super().__init__(index, make_env, *arguments, **options)
        self._acting = acting

    def _where_it_acts(self) -> AbstractContextManager[Any]:
        return jax.default_device(self._device)

    def _no_memory(self, num_envs: int) -> Carry:
        return self._acting.carry(num_envs, np.int32(self.index))

    def _placed(self, carry: Carry) -> Carry:
        return jax.device_put(carry, self._device)

    def _plan(self) -> tuple[Any, Any]:
        count, index = count_of(self.next_unroll), np.int32(self.index)
        return self._acting.plan(self._root, count, index)

    def _begin(self, params: Params, version: int, keys: Any, step: TimeStep) -> None:
        self._now = _Now(params, version, keys, self._carry)
        self._kept = self._acting.extras(params, self._carry, step)

    def _act(self, t: int, step: TimeStep) -> Any:
        now, act = self._now, self._acting.act
        action, self._carry, self._kept = act(
            now.params, self._carry, self._kept, step, now.keys
        )
        return action

    def _end(self, trajectory: Trajectory) -> Trajectory:
        now = self._now
        trajectory = trajectory._replace(
            extras=self._kept[0], carry=jax.device_get(now.carry)
        )
        extras = self._acting.complete(now.params, self._carry, trajectory)
        extras = jax.device_get(extras)
        shape = trajectory.reward.shape
        extras["version"] = np.full(shape, now.version, np.int32)
        return trajectory._replace(extras=extras)
