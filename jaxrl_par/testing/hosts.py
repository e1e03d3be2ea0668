"""A check of simulators against the contract of `envs.host`."""

from contextlib import closing
from typing import Any

import jax
import numpy as np

from jaxrl_par import random
from jaxrl_par.envs.host import HostEnvironment
from jaxrl_par.envs.host.unrolls import UnrollBuffer
from jaxrl_par.types import Box, Discrete, Spec


def check_host_environment(
    env: HostEnvironment, num_steps: int = 200, seed: int = 0
) -> None:
    """Follows the stream of `env` under random actions, and closes it.

    What does not happen within `num_steps` is not checked: choose it such that some
    episodes end, and in each way that they can.

    Raises:
      BadRowError: as in actor threads, for what specs exclude: field, environment, row.
      AssertionError: a reset does not start episodes, or shapes of snapshots change.
    """
    rng = np.random.default_rng(seed)
    rows = UnrollBuffer(env.observation_spec, env.action_spec, num_steps, env.num_envs)
    with closing(env):
        step = env.reset()
        assert np.all(step.first) and not np.any(step.last), (
            "a reset must show `first`, and no `last`, in every environment"
        )
        rows.write_step(0, step)
        start = jax.tree.map(np.shape, env.snapshot())
        env.plan(jax.random.split(random.key(seed), num_steps))
        for t in range(num_steps):
            step, reward, discount = env.step(_action(env, rng))
            rows.write_step(t + 1, step)
            rows.write_reward(t, reward, discount)
            shapes = jax.tree.map(np.shape, env.snapshot())
            assert shapes == start, f"the snapshot has shapes {shapes}, not {start}"
        rows.check()


def _action(env: HostEnvironment, rng: np.random.Generator) -> Any:
    def leaf(spec: Spec) -> np.ndarray:
        shape = (env.num_envs, *spec.shape)
        if isinstance(spec, Box):
            low, high = np.maximum(spec.low, -1e3), np.minimum(spec.high, 1e3)
            return rng.uniform(low, high, size=shape).astype(spec.dtype)
        number = spec.num_values if isinstance(spec, Discrete) else spec.nvec
        return rng.integers(number, size=shape).astype(spec.dtype)

    return jax.tree.map(leaf, env.action_spec)
