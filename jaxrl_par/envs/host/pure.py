"""A pure environment behind the contract of simulators, computed on the host's CPU.

With the keys that a compiled unroll would use, handed over by `plan`, it gives the same
rows: so whatever drives simulators can be compared with what drives pure environments.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key, UInt32

from jaxrl_par.envs.base import Environment, refuse_staggered
from jaxrl_par.envs.host.base import HostEnvironment, HostRow
from jaxrl_par.types import PRNGKey, TimeStep


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
        self._step = jax.jit(
            lambda env_state, action, keys, t: env.step(env_state, action, keys[t])
        )
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
        env_state, step, reward, discount = self._step(
            self._now[0], self._put(action), self._keys, np.int32(self._used)
        )
        self._used += 1
        self._now = (env_state, step)
        return jax.tree.map(np.asarray, (step, reward, discount))

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
