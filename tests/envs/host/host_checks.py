"""What every adapter must keep, checked on the rows that it gives."""

import jax
import numpy as np
import pytest

from jaxrl_par.types import Box, Discrete


def lander(name):
    """Skips where `name` needs Box2D and there is none."""
    if "Lander" in name:
        pytest.importorskip("Box2D")


def random_actions(env, rng):
    spec = env.action_spec
    shape = (env.num_envs, *spec.shape)
    if isinstance(spec, Discrete):
        return rng.integers(0, spec.num_values, shape).astype(np.int32)
    return rng.uniform(spec.low, spec.high, shape).astype(spec.dtype)


def check(env, length, seed=0, bounds=True):
    """Runs `env` and returns (steps [T+1], actions, rewards, discounts [T])."""
    rng = np.random.default_rng(seed)
    step = jax.tree.map(np.array, env.reset())
    check_step(env, step, bounds)
    assert step.first.all() and not step.last.any()
    steps, rows = [step], []
    for _ in range(length):
        action = random_actions(env, rng)
        row = env.step(action)
        step, reward, discount = jax.tree.map(np.array, row)
        check_step(env, step, bounds)
        for x in (reward, discount):
            assert type(x) is np.ndarray
            assert x.shape == (env.num_envs,) and x.dtype == np.float32
        np.testing.assert_array_equal(step.first, steps[-1].last)
        assert not (step.first & step.last).any()
        assert not reward[step.first].any() and not discount[step.first].any()
        assert np.isin(discount, (0, 1)).all()
        assert (discount[~step.first & ~step.last] == 1).all()
        assert np.isfinite(reward).all()
        steps.append(step)
        rows.append((action, reward, discount))
    steps = jax.tree.map(lambda *x: np.stack(x), *steps)
    return steps, *(np.stack(x) for x in zip(*rows, strict=True))


def check_step(env, step, bounds=True):
    for flag in (step.first, step.last):
        assert type(flag) is np.ndarray
        assert flag.shape == (env.num_envs,) and flag.dtype == bool
    specs, structure = jax.tree.flatten(
        env.observation_spec, is_leaf=lambda x: isinstance(x, Box | Discrete)
    )
    leaves = structure.flatten_up_to(step.obs)
    for spec, x in zip(specs, leaves, strict=True):
        assert type(x) is np.ndarray
        assert x.shape == (env.num_envs, *spec.shape), (x.shape, spec)
        assert x.dtype == spec.dtype, (x.dtype, spec)
        assert x.dtype.itemsize <= 4
        if bounds and isinstance(spec, Discrete):
            assert (x >= 0).all() and (x < spec.num_values).all()
        elif bounds:
            assert (x >= spec.low).all() and (x <= spec.high).all(), spec


def lengths(steps):
    """For each environment, the lengths of the episodes that ended."""
    found = []
    for first, last in zip(steps.first.T, steps.last.T, strict=True):
        ends, starts = np.flatnonzero(last), np.flatnonzero(first)
        found.append(list(ends - starts[: len(ends)]))
    return found
