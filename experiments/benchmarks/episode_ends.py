"""What becomes of observations, rewards and starts where episodes end, as questions.

Each answer is yes, why not, or None where there is nothing to ask. What is true is
taken from the task's own transition, computed beside the step that is asked about.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from own_resets import Bare, Seen, Wrapped


class Rows(NamedTuple):
    """T steps of B environments."""

    seen: Seen
    bare: Bare
    idle: Any
    first: Any
    """What reset shows, [B, ...]."""


class Compiled(NamedTuple):
    """B environments, compiled once for all questions: some take minutes."""

    reset: Callable[[Any], tuple[Any, Any]]
    """keys [B] -> (states, obs)"""
    advance: Callable[[Any, Any], tuple[Any, tuple[Seen, Bare, Any]]]
    """(states, key) -> (states, a row of random legal actions)"""


def compiled(wrapped: Wrapped, num_envs: int) -> Compiled:
    def one(state, key):
        act_key, env_key = jax.random.split(key)
        action = wrapped.act(state, act_key)
        bare, idle = wrapped.bare(state, action, env_key), wrapped.idle(state)
        state, seen = wrapped.step(state, action, env_key)
        return state, (seen, bare, jnp.asarray(idle, bool))

    def advance(state, key):
        return jax.vmap(one)(state, jax.random.split(key, num_envs))

    return Compiled(jax.jit(jax.vmap(wrapped.reset)), jax.jit(advance))


def followed(envs: Compiled, num_envs: int, num_steps: int, key: Any) -> Rows:
    """Random legal actions."""
    reset_key, step_key = jax.random.split(key)
    state, first = envs.reset(jax.random.split(reset_key, num_envs))
    keys, rows = jax.random.split(step_key, num_steps), []
    # Not in a scan, which refuses those whose dtypes change.
    for key in keys:
        state, row = envs.advance(state, key)
        rows.append(jax.device_get(row))
    seen, bare, idle = jax.tree.map(lambda *x: np.stack(x), *rows)
    return Rows(seen, bare, idle, jax.device_get(first))


def started(envs: Compiled, num_envs: int, times: int, key: Any) -> Any:
    """What so many resets of all environments show, one after the other."""
    keys = jax.random.split(key, (times, num_envs))
    shown = [jax.device_get(envs.reset(x)[1]) for x in keys]
    return jax.tree.map(lambda *x: np.concatenate(x), *shown)


Answer = bool | str | None
"""Yes, why not, or None where there is nothing to ask."""


def kept(rows: Rows, limit: int | None) -> Answer:
    """What follows the last action of an episode is shown."""
    ends = _ends(rows)
    if not ends.any():
        return "no episode ended"
    same = _alike(rows.seen.successor, rows.bare.obs)[ends]
    return bool(same.all()) or f"{(~same).sum()} of {same.size} are not shown"


def truncates(rows: Rows, limit: int | None) -> Answer:
    """An episode that its limit alone ends goes on for who estimates values."""
    if limit is None:
        return None
    lengths = _lengths(rows)
    if (lengths > limit).any():
        return f"an episode has {lengths.max()} steps, the limit is {limit}"
    cut = _ends(rows) & ~rows.bare.terminated.astype(bool) & (lengths == limit)
    if not cut.any():
        return None  # the task itself ends there
    wrong = cut & (rows.seen.discount == 0)
    return not wrong.any() or f"{wrong.sum()} of {cut.sum()} are ends"


def differ(rows: Rows, limit: int | None, starts: Any) -> Answer:
    """Episodes begin in different ways, if the task does.

    Args:
      starts: what many resets show.
    """
    if _alike(starts, jax.tree.map(lambda x: x[:1], starts), 1).all():
        return None
    if _alike(rows.first, jax.tree.map(lambda x: x[:1], rows.first), 1).all():
        return "all environments begin alike"
    begins = rows.idle if rows.idle.any() else _ends(rows)
    repeated = total = 0
    for b in range(begins.shape[1]):
        first = jax.tree.map(lambda x, b=b: x[b][None], rows.first)
        found = jax.tree.map(lambda x, b=b: x[begins[:, b], b], rows.seen.obs)
        same = _alike(found, first, 1)
        repeated, total = repeated + int(same.sum()), total + same.size
    return repeated < total or f"all {total} begin as the first episode did"


def paid(rows: Rows, limit: int | None) -> Answer:
    """Every reward of the task is there, and no other."""
    wanted = np.where(rows.idle, 0.0, rows.bare.reward)
    same = np.isclose(rows.seen.reward, wanted, rtol=1e-4, atol=1e-4)
    return bool(same.all()) or f"{(~same).sum()} of {same.size} are others"


def stable(wrapped: Wrapped, key: Any) -> Answer:
    """A scan takes what reset and step return."""
    state, obs = jax.eval_shape(wrapped.reset, key)
    action = jax.eval_shape(wrapped.act, state, key)
    after, seen = jax.eval_shape(wrapped.step, state, action, key)
    before, then = ((state, obs), (after, seen.obs))
    if jax.tree.structure(before) != jax.tree.structure(then):
        return "step returns another structure than reset"
    paths = [jax.tree_util.keystr(x) for x, _ in jax.tree.leaves_with_path(before)]
    for path, x, y in zip(
        paths, jax.tree.leaves(before), jax.tree.leaves(then), strict=True
    ):
        kinds = [(z.shape, z.dtype, z.weak_type) for z in (x, y)]
        if kinds[0] != kinds[1]:
            told = [f"{z.dtype}{' weak' * z.weak_type}{list(z.shape)}" for z in (x, y)]
            return f"{path} is {told[0]}, and {told[1]} after a step"
    return True


def _ends(rows: Rows) -> Any:
    return rows.seen.over.astype(bool) & ~rows.idle


def _lengths(rows: Rows) -> Any:
    """Steps of the episode, that of the row included."""
    count, found = np.zeros(rows.idle.shape[1], int), []
    for over, idle in zip(rows.seen.over.astype(bool), rows.idle, strict=True):
        count = np.where(idle, 0, count + 1)
        found.append(count)
        count = np.where(over, 0, count)
    return np.stack(found)


def _alike(x: Any, y: Any, axes: int = 2) -> Any:
    """Which rows are the same up to rounding: [T, B], or [B] for one axis."""

    def close(a: Any, b: Any) -> Any:
        found = np.isclose(np.asarray(a, float), np.asarray(b, float), 1e-4, 1e-4)
        return found.reshape(*found.shape[:axes], -1).all(-1)

    return np.all(jax.tree.leaves(jax.tree.map(close, x, y)), axis=0)
