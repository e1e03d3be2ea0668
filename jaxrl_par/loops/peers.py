"""Learners with states of their own, which move towards each other.

What moves are parameters: every floating-point part of a state, but for a field called
`opt_state`, the optimizer's, which stays each learner's own. A move adds differences
that were read to what is there by now, and never writes over it: an update that came
meanwhile is kept, and the sum over all learners is the old sum and all updates.

Statistics of observations are `Moments`, which are no numbers to average. Their counts
and sums are, so these move: together all learners keep the rows that they have seen,
each of which counts as often as before.

Source: Lian et al., arXiv:1710.06952 (AD-PSGD), algorithm 1.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jaxrl_par import rollout
from jaxrl_par.axis import Axis
from jaxrl_par.envs import Environment
from jaxrl_par.loops.learner import Data, Learner
from jaxrl_par.loops.run import episode_metrics, unroll_keys
from jaxrl_par.statistics import SMALLEST_COUNT, Moments
from jaxrl_par.types import Count, Metrics, PRNGKey, State

Parts = list[Any]
"""Those of a state that move: arrays, and `Moments`."""
_OPTIMIZER = "opt_state"


class Learned(NamedTuple):
    """What an unroll of one learner gives."""

    state: State
    streams: rollout.Streams
    data: Data
    env_steps: Int[Array, ""]
    metrics: Metrics


def act_and_learn(
    learner: Learner,
    env: Environment,
    unroll_length: int,
    state: State,
    streams: rollout.Streams,
    data: Data,
    root: PRNGKey,
    unroll: Count,
    place: Int[Array, ""] | int,
) -> Learned:
    """An unroll of one learner, and what it learns from that alone.

    Args:
      root: of the run; it acts and learns with the keys of instance `place` of a
        synchronous program.
    """
    act_key, learn_key = unroll_keys(root, unroll, place)
    params = learner.params(state)
    streams, trajectory, episodes = rollout.unroll(
        learner.actor, env, params, streams, act_key, unroll_length
    )
    state, data, metrics = learner.learn(state, data, trajectory, learn_key, Axis())
    metrics = metrics | episode_metrics(episodes, Axis())
    return Learned(state, streams, data, trajectory.env_steps, metrics)


def shared(state: State, optimizer: bool = False) -> Parts:
    """The parts that move; with those of the optimizer if asked for."""
    return [x for x, moves in _parts(state, optimizer) if moves]


def with_shared(state: State, parts: Parts, optimizer: bool = False) -> State:
    """The state with other such parts."""
    new = iter(parts)
    tree = jax.tree.structure(state, is_leaf=_is_moments)
    kept = [next(new) if moves else x for x, moves in _parts(state, optimizer)]
    return tree.unflatten(kept)


def moved(now: Parts, *moves: tuple[float, Parts, Parts]) -> Parts:
    """`now`, and of each (weight, to, from) the weight times (to - from)."""
    weights = [weight for weight, _, _ in moves]
    ends = [end for _, to, start in moves for end in (to, start)]
    columns = zip(now, *ends, strict=True)
    return [_moved(x, weights, others) for x, *others in columns]


def learned_meanwhile(now: Parts, learned: Parts, read: Parts) -> Parts:
    """`now`, and what was learned from what was read before.

    Where nothing came between it is what was learned, bit for bit.
    """
    new = moved(now, (1.0, learned, read))
    parts = zip(now, read, learned, new, strict=True)
    return [_unless_equal(*part) for part in parts]


def distance(ours: Parts, theirs: Parts) -> Float[Array, ""]:
    """The norm of the difference of all parameters."""
    pairs = zip(ours, theirs, strict=True)
    squares = [jnp.sum(jnp.square(x - y)) for x, y in pairs if not _is_moments(x)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares))) if squares else jnp.float32(0)


def mean_state(states: State) -> State:
    """The state of the first of N learners, leaves [N, ...], with the mean of what
    moves: that of all learners together."""
    number = jax.tree.leaves(states)[0].shape[0]
    apart = [jax.tree.map(lambda x, i=i: x[i], states) for i in range(number)]
    first, *others = apart
    own = shared(first)
    moves = ((1.0 / number, shared(x), own) for x in others)
    return with_shared(first, moved(own, *moves))


def _parts(state: State, optimizer: bool) -> Iterator[tuple[Any, bool]]:
    """Each part, and whether it moves."""
    for path, part in jax.tree.leaves_with_path(state, is_leaf=_is_moments):
        names = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
        free = optimizer or _OPTIMIZER not in names
        yield part, free and (_is_moments(part) or _is_float(part))


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)


def _is_moments(x: Any) -> bool:
    return isinstance(x, Moments)


def _moved(now: Any, weights: list[float], ends: list[Any]) -> Any:
    if not _is_moments(now):
        return _summed(now, weights, ends)
    # Sums are taken around a mean that is near to all: squares of large numbers would
    # lose the digits of a small variance.
    sums = [_sums(x, now.mean) for x in (now, *ends)]
    new = jax.tree.map(lambda x, *xs: _summed(x, weights, list(xs)), *sums)
    return _moments(new, now)


def _summed(now: Array, weights: list[float], ends: list[Array]) -> Array:
    for weight, to, start in zip(weights, ends[::2], ends[1::2], strict=True):
        now = now + weight * (to - start)
    return now


def _sums(moments: Moments, around: PyTree) -> Moments:
    """Count, sums and sums of squares of (row - around)."""
    count = moments.count
    offsets = jax.tree.map(jnp.subtract, moments.mean, around)
    squares = jax.tree.map(
        lambda variance, offset: count * (variance + jnp.square(offset)),
        moments.variance, offsets,
    )  # fmt: skip
    return Moments(count, jax.tree.map(lambda x: count * x, offsets), squares)


def _moments(sums: Moments, now: Moments) -> Moments:
    """The inverse, around the mean of `now`; which stays where nothing was counted."""
    count, known = sums.count, sums.count > SMALLEST_COUNT
    safe = jnp.maximum(count, SMALLEST_COUNT)
    offsets = jax.tree.map(lambda x: x / safe, sums.mean)
    means = jax.tree.map(jnp.add, now.mean, offsets)
    variances = jax.tree.map(
        lambda x, offset: jnp.maximum(x / safe - jnp.square(offset), 0.0),
        sums.variance, offsets,
    )  # fmt: skip
    new = Moments(count, means, variances)
    return jax.tree.map(lambda x, y: jnp.where(known, x, y), new, now)


def _unless_equal(now: Any, read: Any, learned: Any, new: Any) -> Any:
    same = jax.tree.map(lambda x, y: jnp.all(x == y), now, read)
    nothing_came = jnp.stack(jax.tree.leaves(same)).all()
    return jax.tree.map(lambda x, y: jnp.where(nothing_came, x, y), learned, new)
