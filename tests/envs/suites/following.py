"""Streams beside a plain loop over what the suite itself computes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par import random
from jaxrl_par.envs.raw import without_constants
from jaxrl_par.types import Masked


class Rows(NamedTuple):
    """[T] rows of B environments, and the final step."""

    obs: Any
    first: np.ndarray
    last: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    discount: np.ndarray


def actions_of(env, num_steps, seed=0):
    """Random ones [T, B, ...], which ask for more than a bounded body can do."""
    key, spec = random.key(seed), env.action_spec
    shape = (num_steps, env.num_envs, *spec.shape)
    if hasattr(spec, "num_values"):
        return jax.random.randint(key, shape, 0, spec.num_values, jnp.int32)
    return 1.5 * jax.random.normal(key, shape)


def streamed(env, actions, key):
    """What the stream shows, T+1 steps, and the keys of its steps."""
    keys = jax.random.split(jax.random.fold_in(key, 1), len(actions))

    def advance(now, inputs):
        env_state, step, reward, discount = env.step(now, *inputs)
        return env_state, (step, reward, discount)

    def run(key, actions, keys):
        now, first = env.reset(key)
        _, (steps, *rows) = jax.lax.scan(advance, now, (actions, keys))
        steps = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, steps)
        return steps, *rows

    return *jax.device_get(jax.jit(run)(key, actions, keys)), keys


def looped(reset, step, limit, actions, key, keys):
    """The same by hand, one environment after the other.

    Args:
      reset: key -> (state, obs), of the suite.
      step: (state, action, key) -> (state, obs, reward, ended), of the suite.
    """
    num_steps, num_envs = len(actions), actions.shape[1]
    reset, step = jax.jit(reset), jax.jit(step)
    lanes = []
    for b in range(num_envs):
        state, obs = reset(jax.random.split(key, num_envs)[b])
        shown, rows, last, time = [(obs, True, False)], [], False, 0
        for t in range(num_steps):
            step_keys, reset_keys = jax.random.split(keys[t], (2, num_envs))
            if last:
                state, obs = reset(reset_keys[b])
                shown.append((obs, True, False))
                rows.append((0.0, 0.0))
                last, time = False, 0
                continue
            state, obs, reward, ended = step(state, actions[t, b], step_keys[b])
            time += 1
            last = bool(ended) or time == limit
            shown.append((obs, False, last))
            rows.append((float(reward), 1.0 - bool(ended)))
        lanes.append((shown, rows))
    return jax.device_get(lanes)


def compare(env, reset, step, num_steps, tolerance=0.0):
    """That the stream is the loop; bits where `tolerance` is 0, else in norms.

    Returns:
      How many episodes (terminated, were cut).
    """
    key = random.key(7)
    actions = actions_of(env, num_steps)
    steps, rewards, discounts, keys = streamed(env, actions, key)
    bounded = actions
    if not hasattr(env.action_spec, "num_values"):
        bounded = jnp.clip(actions, env.action_spec.low, env.action_spec.high)
    limit = env.max_episode_steps
    lanes = looped(reset, step, limit, bounded, key, keys)
    for b, (shown, rows) in enumerate(lanes):
        obs, first, last = zip(*shown, strict=True)
        np.testing.assert_array_equal(steps.first[:, b], first)
        np.testing.assert_array_equal(steps.last[:, b], last)
        reward, discount = np.array(rows).T
        np.testing.assert_array_equal(discounts[:, b], discount)
        near(rewards[:, b], reward, tolerance)
        theirs = jax.tree.map(lambda *xs: np.stack(xs), *obs)
        ours = jax.tree.map(lambda x, b=b: x[:, b], steps.obs)
        jax.tree.map(lambda x, y: near(x, y, tolerance), ours, theirs)
    ends = steps.last[1:]
    terminated = ends & (discounts == 0)
    return int(terminated.sum()), int((ends & ~terminated).sum())


def starts_afresh(env, raw, num_steps, tolerance=0.0):
    """Trap S10: after each episode all leaves of the state, what the suite keeps beside
    it included, are those of its `reset` with the same key. What is left out of the
    state does not change.

    Args:
      raw: that of the adapter.

    Returns:
      How many starts were compared, but for the first ones.
    """
    key, advance = random.key(11), jax.jit(env.step)
    reset = jax.jit(without_constants(raw).reset)
    now, step = jax.jit(env.reset)(key)
    count, actions = 0, actions_of(env, num_steps)
    for t in range(num_steps):
        step_key = jax.random.fold_in(key, t)
        action = actions[t]
        if isinstance(step.obs, Masked):
            action = jnp.argmax(step.obs.allowed, axis=-1).astype(jnp.int32)
        now, step, *_ = advance(now, action, step_key)
        _, reset_keys = jax.random.split(step_key, (2, env.num_envs))
        for b in np.flatnonzero(step.first):
            found = jax.tree.map(lambda x, b=b: x[b], now.inner.streams.state)
            expected, _ = reset(reset_keys[b])
            jax.tree.map(lambda x, y: near(x, y, tolerance), found, expected)
            count += 1
    return count


def near(x, y, tolerance):
    """Differences relative to the largest element; physics amplifies roundings. What
    is counted or is a truth is the same."""
    x, y = np.asarray(x), np.asarray(y)
    assert x.shape == y.shape
    if not tolerance or x.dtype.kind != "f":
        np.testing.assert_array_equal(x, y.astype(x.dtype))
        return
    largest = max(np.abs(y).max(initial=0), 1e-6)
    assert np.abs(x - y).max(initial=0) <= tolerance * largest
