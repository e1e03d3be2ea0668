"""Buffers: what a learner keeps of its trajectories, and the batches it makes of them.

An item is the unroll of one lane, so no topology needs to keep an order for them. A
batch is a `Trajectory` again, [L, K]: windows of L rows of K items. Rows that are
`last` weigh 0 in every loss, so windows may cross ends of episodes, and one loss serves
L = 1 (DQN), L = n (n-step) and whole unrolls with memory (R2D2).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from jaxrl_par.axis import Axis
from jaxrl_par.errors import refuse
from jaxrl_par.replay import ring
from jaxrl_par.types import Info, PRNGKey, State, Trajectory

Data = PyTree
Drawn = Any
"""Which items a batch is of, for `Buffer.update`."""


class Buffer(NamedTuple):
    """What a device or a worker keeps, as pure functions of its data."""

    init: Callable[[Trajectory], Data]
    """Empty, for trajectories of these shapes and dtypes."""
    add: Callable[[Data, State, Trajectory], Data]
    sample: Callable[[Data, Trajectory, PRNGKey, Axis], tuple[Trajectory, Drawn]]
    """(data, newest trajectory, key, axis) -> (batch, drawn). Something was added
    before."""
    update: Callable[[Data, Drawn, Info], Data]
    """After a gradient of the batch, with its `Info.priorities`."""
    ready: Callable[[Data], Bool[Array, ""] | bool]
    """Before that, gradients are not applied."""


def fresh() -> Buffer:
    """Keeps nothing: each batch is the newest trajectory. On-policy learning."""
    return Buffer(
        init=lambda shapes: (),
        add=lambda data, state, trajectory: data,
        sample=lambda data, newest, key, axis: (newest, ()),
        update=lambda data, drawn, info: data,
        ready=lambda data: True,
    )


def uniform(
    capacity: int,
    batch_size: int,
    length: int | None = None,
    *,
    min_size: int = 1,
    constant_carry: bool = False,
) -> Buffer:
    """Keeps the newest unrolls, and draws windows of them, each as often as any other.

    Args:
      capacity: unrolls of one lane that are kept, a multiple of those added at a time.
      batch_size: windows in a batch.
      length: rows of a window, by default of the whole unroll.
      min_size: unrolls that are kept before anything is learned.
      constant_carry: the carry stays the same within an unroll, as a rate of
        exploration does, so that a window may start in any row. Otherwise a carry is
        known in row 0 only, where it was stored, and all windows start there.

    Raises:
      ValueError: a number is below 1, or `min_size` above `capacity`; or, from `init`,
        `length` is above that of the unrolls, or as `ring.empty`.
    """
    refuse(capacity=capacity, batch_size=batch_size, min_size=min_size, length=length)
    if min_size > capacity:
        raise ValueError(
            f"min_size must be at most capacity = {capacity}, got {min_size}"
        )

    def init(shapes: Trajectory) -> ring.Ring:
        rows = shapes.reward.shape[0]
        if length is not None and length > rows:
            raise ValueError(f"length must be at most {rows}, got {length}")
        return ring.empty(jax.eval_shape(Trajectory.lanes_first, shapes), capacity)

    def sample(data: ring.Ring, newest: Trajectory, key: PRNGKey, axis: Axis):
        if length is None:
            return ring.sample(data, key, batch_size).time_first(), ()
        item_key, start_key = jax.random.split(key)
        item = jax.random.randint(item_key, (batch_size,), 0, data.size)
        start = jnp.zeros_like(item)
        if constant_carry or not jax.tree.leaves(data.items.carry):
            last = data.items.reward.shape[1] - length
            start = jax.random.randint(start_key, (batch_size,), 0, last + 1)
        return _windows(data.items, item, start, length), ()

    return Buffer(
        init=init,
        add=lambda data, state, trajectory: ring.add(data, trajectory.lanes_first()),
        sample=sample,
        update=lambda data, drawn, info: data,
        ready=lambda data: data.size >= min_size,
    )


def _windows(items: Trajectory, item: Array, start: Array, length: int) -> Trajectory:
    """Rows start .. start + length - 1 of those items, and the step after them."""

    def cut(tree: PyTree, size: int) -> PyTree:
        rows = start[:, None] + jnp.arange(size)[None]
        return jax.tree.map(lambda x: x[item[:, None], rows], tree)

    rows = cut(items._replace(steps=(), carry=()), length)
    carry = jax.tree.map(lambda x: x[item], items.carry)
    steps = cut(items.steps, length + 1)
    return rows._replace(steps=steps, carry=carry).time_first()
