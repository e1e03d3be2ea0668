"""A pure environment behind the contract of simulators, computed on the host's CPU.

With the keys that a compiled unroll would use, handed over by `plan`, it gives the same
rows: so whatever drives simulators can be compared with what drives pure environments.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key, UInt32

from jaxrl_par.envs.base import Environment, Episode, refuse_staggered
from jaxrl_par.envs.host.base import HostEnvironment, HostRow
from jaxrl_par.types import Mean, Metrics, PRNGKey, TimeStep


def from_pure(env: Environment, key: PRNGKey) -> HostEnvironment:
    """The environments of `env`, in numpy. `key` is for the reset; steps use the keys
    of `plan`, in order.

    Raises:
      RefusedError: first episodes of `env` are staggered, which rows do not tell.
    """
    refuse_staggered(env)
    return _PureHost(env, key)


class _PureHost(HostEnvironment):
    def __init__(self, env: Environment, key: PRNGKey):
        self._describe(env)
        self._cpu = jax.local_devices(backend="cpu")[0]
        self._key = self._put(key)
        self._reset = jax.jit(env.reset)
        self._step = jax.jit(partial(_stepped, env))
        self._episode = env.episode
        self._told: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
        """Of each step that ended some episode: of which, and what it told."""
        self._now: Any = None
        self._keys: Any = ()
        self._used = 0

    def reset(self) -> TimeStep:
        self._now = self._reset(self._key)
        return jax.tree.map(np.asarray, self._now[1])

    def plan(self, keys: Key[Array, " T"] | UInt32[np.ndarray, "T 2"]) -> None:
        """What was left is dropped."""
        if isinstance(keys, np.ndarray):
            kind = jax.random.key_impl(self._key)
            keys = jax.random.wrap_key_data(jax.numpy.asarray(keys), impl=kind)
        self._keys, self._used = self._put(keys), 0

    def step(self, action: Any) -> HostRow:
        """
        Raises:
          RuntimeError: there was no reset, or no key is left.
        """
        if self._now is None:
            raise RuntimeError(f"{self.name}: reset comes before the first step")
        if self._used == len(self._keys):
            raise RuntimeError(
                f"no key is planned for this step of {self.name}: call plan(keys) with"
                " a key for each of the next steps"
            )
        env_state, row, told = self._step(
            self._now[0], self._put(action), self._keys, np.int32(self._used)
        )
        self._used += 1
        self._now = (env_state, row[0])
        row = jax.tree.map(np.asarray, row)
        if told and row[0].last.any():
            self._told.append((row[0].last, jax.tree.map(np.asarray, told)))
        return row

    def take_info(self, lanes: np.ndarray | None = None) -> Metrics:
        taken, self._told = self._told, []
        chosen = slice(None) if lanes is None else lanes
        names = jax.eval_shape(partial(_told, self._episode), self._now[0])

        def mean(name: str) -> Mean:
            numbers = [told[name][chosen][ended[chosen]] for ended, told in taken]
            total, count = sum(x.sum() for x in numbers), sum(map(len, numbers))
            both: Any = np.float32(total), np.float32(count)
            return Mean(*both)

        return {name: mean(name) for name in names}

    def snapshot(self) -> Any:
        """(env_state, step) as they are: arrays of JAX do not change."""
        return self._now

    def restore(self, snapshot: Any) -> TimeStep:
        """Continues from there, with keys that are planned from now on."""
        self._now, self._keys, self._used = self._put(snapshot), (), 0
        return jax.tree.map(np.asarray, self._now[1])

    def close(self) -> None:
        self._now, self._keys, self._used = None, (), 0

    def _put(self, tree: Any) -> Any:
        return jax.device_put(tree, self._cpu)


def _stepped(env: Environment, env_state: Any, action: Any, keys: Any, t: Any):
    """(state, row, what it tells of the episodes that end)."""
    env_state, *row = env.step(env_state, action, keys[t])
    return env_state, tuple(row), _told(env.episode, env_state)


def _told(episode: Callable[[Any], Episode] | None, env_state: Any) -> dict[str, Any]:
    return episode(env_state).told if episode else {}
