"""Buffers: what a learner keeps of its trajectories, and the batches it makes of them.

An item is the unroll of one lane, so no topology needs to keep an order for them. A
batch is a `Trajectory` again, [L, K]: windows of K items, cut as `windows` tells. Rows
that are `last` weigh 0 in every loss, so windows may cross ends of episodes, and one
loss serves single transitions (DQN), n steps, and sequences with memory (R2D2).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, PyTree

from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.replay import ring
from jaxrl_par.replay.windows import Windows
from jaxrl_par.types import Info, PRNGKey, State, Trajectory, Unsaved

Data = PyTree
Drawn = Any
"""Which items a batch is of, for `Buffer.update`."""


class Buffer(NamedTuple):
    """What a device or a worker keeps, as pure functions of its data."""

    init: Callable[[Trajectory], Data]
    """Empty, for trajectories of these shapes and dtypes."""
    add: Callable[[Data, State, Trajectory], Data]
    sample: Callable[[Data, Trajectory | None, PRNGKey, Axis], tuple[Trajectory, Drawn]]
    """(data, newest trajectory, key, axis) -> (batch, drawn). Something was added
    before. There is a newest one, unless this has `batch_rows`."""
    update: Callable[[Data, Drawn, Info, Axis], Data]
    """After a gradient of the batch, with its `Info.priorities`."""
    ready: Callable[[Data], Bool[Array, ""] | bool]
    """Before that, gradients are not applied."""
    batch_rows: Callable[[int], int] | None = None
    """Rows of one device's batch that are trained, of unrolls of so many rows. None:
    batches are of the newest trajectory, and without one there are none."""


def fresh() -> Buffer:
    """Keeps nothing: each batch is the newest trajectory. On-policy learning."""

    def sample(data: Data, newest: Trajectory | None, key: PRNGKey, axis: Axis):
        assert newest is not None
        return newest, ()

    return Buffer(
        init=lambda shapes: (),
        add=lambda data, state, trajectory: data,
        sample=sample,
        update=lambda data, drawn, info, axis: data,
        ready=lambda data: True,
    )


def uniform(
    capacity: int,
    batch_size: int,
    windows: Windows = Windows(),
    *,
    min_size: int = 1,
) -> Buffer:
    """Keeps the newest unrolls, and draws windows of them, each as often as any other.

    Args:
      capacity: unrolls of one lane that are kept, a multiple of those added at a time.
      batch_size: windows in a batch.
      windows: by default whole unrolls.
      min_size: unrolls that are kept before anything is learned.

    Raises:
      ValueError: a number is below 1, or `min_size` above `capacity`; or, from `init`,
        as `Windows.refuse` and `ring.empty`.
    """
    refuse_sizes(capacity, batch_size, windows, min_size)

    def init(shapes: Trajectory) -> ring.Ring:
        windows.refuse(shapes)
        return ring.empty(jax.eval_shape(windows.kept, shapes), capacity)

    def sample(data: ring.Ring, newest: Trajectory | None, key: PRNGKey, axis: Axis):
        item_key, window_key = jax.random.split(key)
        item = jax.random.randint(item_key, (batch_size,), 0, data.size)
        number = windows.each(data.items.reward.shape[1])
        window = jax.random.randint(window_key, (batch_size,), 0, number)
        return windows.cut(data.items, item, window), ()

    return Buffer(
        init=init,
        add=lambda data, state, trajectory: ring.add(data, windows.kept(trajectory)),
        sample=sample,
        update=lambda data, drawn, info, axis: data,
        ready=lambda data: data.size >= min_size,
        batch_rows=lambda rows: batch_size * windows.trained(rows),
    )


def unsaved(buffer: Buffer) -> Buffer:
    """The same buffer, which checkpoints leave out.

    A run that goes on from one has an empty buffer then, as at its start: with its
    priorities, the largest of them and the rise of beta. Until `ready`, which is later
    again, nothing is learned. All else goes on, but not to the same bits.
    """
    return Buffer(
        init=lambda shapes: Unsaved(buffer.init(shapes)),
        add=lambda data, *given: Unsaved(buffer.add(data.content, *given)),
        sample=lambda data, *given: buffer.sample(data.content, *given),
        update=lambda data, *given: Unsaved(buffer.update(data.content, *given)),
        ready=lambda data: buffer.ready(data.content),
        batch_rows=buffer.batch_rows,
    )


def without_carry(buffer: Buffer) -> Buffer:
    """The same buffer, of unrolls whose carry it does not keep: batches have (). For
    agents that learn nothing from it, as where it is noise or held parameters."""
    return buffer._replace(
        init=lambda shapes: buffer.init(shapes._replace(carry=())),
        add=lambda data, state, trajectory: buffer.add(
            data, state, trajectory._replace(carry=())
        ),
    )


def refuse_sizes(
    capacity: int, batch_size: int, windows: Windows, min_size: int
) -> None:
    """Accepts the sizes of a buffer.

    Raises:
      RefusedError: one is below 1, or `min_size` above `capacity`.
    """
    refuse(windows, capacity=capacity, batch_size=batch_size, min_size=min_size)
    if min_size > capacity:
        raise RefusedError(
            f"min_size must be at most capacity = {capacity}, got {min_size}"
        )
