"""Where episodes of pure environments begin, and when the very first ones end.

A compiled step cannot know which environments ended, so one that computes a reset for
each of B environments pays for B of them, of which it uses a few: in CartPole they are
three quarters of the work. Two ways compute fewer, and share them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from jaxrl_par.errors import ReadIf, at_least, at_most, not_chosen
from jaxrl_par.types import PRNGKey

Starts = Any
"""(state, obs), leaves [N, ...]."""


@dataclass(frozen=True)
class Resets:
    """Where episodes begin, and when the first ones end.

    What environments share, they share on one device: each device, worker or learner
    has a pool, resets and staggered starts of its own.
    """

    read_if: ClassVar[ReadIf] = {
        "per_step": ("kind", ("pooled", "optimistic")),
        "pool_size": ("kind", ("pooled",)),
    }

    kind: Literal["fresh", "pooled", "optimistic"] = "fresh"
    """fresh: every environment computes a reset of its own in each step. pooled:
    episodes begin at one of `pool_size` starts, each as likely, which they do not use
    up. optimistic: only `per_step` resets are computed a step, for the episodes that
    begin in it. In both, episodes that begin in the same step begin each at another
    start; if they are more than starts, equally many share each, up to one."""
    per_step: int = 16
    """Resets that are computed a step. A pool is made anew when it would have so many
    for each of its steps; with 0 it stays what it was at first."""
    pool_size: int = 256
    """Starts in a pool, a multiple of `per_step`."""
    stagger: int = 0
    """Steps over which the ends of the first episodes are spread, so that environments
    do not end together: of B, the one with index i is cut after stagger - i * stagger
    // B steps at the latest. It bootstraps as at a time limit, and counts in no
    statistic. 0: none is cut."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, per_step=0, pool_size=1, stagger=0) + not_chosen(self)
        found += at_most(self, per_step=2**20, pool_size=2**20)
        if found:
            return found
        if self.kind == "optimistic" and not self.per_step:
            return ["per_step must be at least 1 for kind = optimistic, got 0"]
        if self.kind == "pooled" and self.per_step and self.pool_size % self.per_step:
            wrong = f"pool_size must be a multiple of per_step = {self.per_step}"
            return [f"{wrong}, got {self.pool_size}"]
        return []

    def misfits(self, num_envs: int, limit: int | None) -> list[str]:
        """What does not fit so many environments with this time limit."""
        found = []
        if self.kind == "optimistic" and self.per_step > num_envs:
            most = f"the {num_envs} environments that share them"
            found.append(f"per_step must be at most {most}, got {self.per_step}")
        if limit is not None and self.stagger > limit:
            most = f"max_episode_steps = {limit}"
            found.append(f"stagger must be at most {most}, got {self.stagger}")
        return found

    def first_lengths(self, num_envs: int) -> Int[np.ndarray, " B"]:
        """The steps after which staggered first episodes are cut."""
        return self.stagger - np.arange(num_envs) * self.stagger // num_envs


class Source(NamedTuple):
    """What makes starts for B environments, and keeps some."""

    begin: Callable[[PRNGKey], tuple[Any, Starts]]
    """What is kept, and the first starts [B]."""
    keys: Callable[[PRNGKey], tuple[Key[Array, " B"], Any]]
    """The keys of the environments in a step, and those of `draw`."""
    draw: Callable[[Any, Bool[Array, " B"], Any], tuple[Any, Starts]]
    """(kept, which episodes begin, keys) -> (kept, starts [B])

    Only those of episodes that begin are sound."""


def source(
    resets: Resets, reset: Callable[[Key[Array, " N"]], Starts], num_envs: int
) -> Source:
    """Where starts come from.

    Args:
      reset: computes as many as it gets keys.
    """

    def begin(key: PRNGKey) -> tuple[Any, Starts]:
        return (), reset(jax.random.split(key, num_envs))

    def keys(key: PRNGKey) -> tuple[Key[Array, " B"], Any]:
        # Not one for each environment, most of which would be derived in vain.
        step_key, reset_key = jax.random.split(key)
        return jax.random.split(step_key, num_envs), reset_key

    def draw(kept: Any, begins: Bool[Array, " B"], key: PRNGKey) -> tuple[Any, Starts]:
        starts = reset(jax.random.split(key, resets.per_step))
        return kept, _shared(starts, begins, 0, resets.per_step)

    if resets.kind == "fresh":
        return Source(
            begin,
            lambda key: tuple(jax.random.split(key, (2, num_envs))),
            lambda kept, begins, keys: (kept, _once(reset(keys))),
        )
    if resets.kind == "pooled":
        return Source(*_pooled(resets, reset, num_envs, keys))
    return Source(begin, keys, draw)


def _shared(starts: Starts, begins: Bool[Array, " B"], at: Any, number: int) -> Starts:
    """Starts [B] of so many: the first episode that begins has the one there, and the
    next ones those behind. They were drawn apart from whom they are for, so that any
    order will do."""
    rank = jnp.cumsum(begins, dtype=jnp.int32) - 1
    chosen = (jnp.maximum(rank, 0) + at) % number
    return _once(jax.tree.map(lambda x: jnp.take(x, chosen, 0, mode="clip"), starts))


def _once(starts: Starts) -> Starts:
    """The same: XLA would draw its random numbers again for each leaf they enter."""
    return jax.lax.optimization_barrier(starts)


class _Pool(NamedTuple):
    starts: Starts
    """Those of the pool. If they are as many as environments or more, its first ones
    come once more behind its last: so B from any place on are a slice."""
    age: Int[Array, ""]
    """Steps since the pool was made."""


def _pooled(
    resets: Resets,
    reset: Callable[[Key[Array, " N"]], Starts],
    num_envs: int,
    keys: Callable,
) -> tuple[Callable, Callable, Callable]:
    size, apart = resets.pool_size, num_envs <= resets.pool_size
    period = size // resets.per_step if resets.per_step else 0

    def again(x: Array) -> Array:
        return jnp.concatenate([x, x[: num_envs - 1]]) if apart else x

    def made(key: PRNGKey) -> Starts:
        return jax.tree.map(again, reset(jax.random.split(key, size)))

    def begin(key: PRNGKey) -> tuple[_Pool, Starts]:
        first_key, pool_key = jax.random.split(key)
        first = reset(jax.random.split(first_key, num_envs))
        return _Pool(made(pool_key), jnp.int32(0)), first

    def renewed(pool: _Pool, key: PRNGKey) -> _Pool:
        """The pool, made anew if it is that old."""
        # A loop of one turn or none. A branch would copy the pool in each step, and
        # under vmap both ways would be computed in each. XLA computes in front of a
        # loop what no turn changes, which would be in each step: so the key changes.
        age = pool.age + 1

        def turn(now):
            _, is_old, key = now
            key, use = jax.random.split(key)
            return made(use), ~is_old, key

        start = pool.starts, age == period, key
        starts, *_ = jax.lax.while_loop(lambda now: now[1], turn, start)
        return _Pool(starts, age % period)

    def draw(pool: _Pool, begins: Bool[Array, " B"], key: PRNGKey):
        place_key, renewal_key = jax.random.split(key)
        if period:
            pool = renewed(pool, renewal_key)
        place = jax.random.randint(place_key, (), 0, size, jnp.int32)
        if not apart:
            return pool, _shared(pool.starts, begins, place, size)

        def of_each(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, place, num_envs)

        return pool, jax.tree.map(of_each, pool.starts)

    return begin, keys, draw
