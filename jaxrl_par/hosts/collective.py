"""What all processes of a run do together: each function is called by all of them, in
the same order. In a process alone they do what their names say, and wait for nobody.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, PyTree

from jaxrl_par.hosts import world

Tree = TypeVar("Tree")
Arrays = Mapping[str, Array]
"""By name; the same names in all processes."""


def alone() -> bool:
    """Whether this process trains by itself. No device is started to know it."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def leads() -> bool:
    """Whether this is process 0, which writes what there is to be written."""
    return alone() or jax.process_index() == 0


def border(number: int) -> int:
    """Between two chunks: the first process's number that is not 0, or 0.

    All are told the same. It is what stops them, or nothing does.
    """
    if watch := world.watch():
        watch.border()
    if alone():
        return number
    numbers = multihost_utils.process_allgather(np.int32(number))
    asked = next((int(x) for x in numbers if x), 0)
    if asked:
        world.stop()
    return asked


def last_border() -> None:
    """There are no chunks after this."""
    if watch := world.watch():
        watch.rest()


def said_by_first(answer: bool = False) -> bool:
    """What process 0 says; the others need not know it."""
    if alone():
        return answer
    return bool(multihost_utils.broadcast_one_to_all(np.int32(answer)))


def told_by_first(content: Any = None) -> Any:
    """What process 0 tells, and JSON can hold."""
    if alone():
        return content
    data = np.frombuffer(json.dumps(content).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
    data = _broadcast(data if leads() else np.zeros(size, np.uint8))
    return json.loads(data.tobytes())


def fetched(tree: PyTree) -> PyTree:
    """Arrays of NumPy, whole, also where devices of other processes have a part."""
    if alone():
        return jax.device_get(tree)
    # One after the other: several at once could meet in another order elsewhere.
    return jax.tree.map(_whole, tree)


def spread(values: Mapping[str, np.ndarray] | None, like: Arrays) -> dict[str, Array]:
    """Arrays of process 0 on the devices of all, placed as those of `like`.

    Args:
      values: None in all processes but the first.
    """
    placed = {}
    for name, x in like.items():
        value = values[name] if values else np.zeros(x.shape, x.dtype)
        if not alone() and value.size:
            value = _broadcast(value)
        placed[name] = jax.make_array_from_callback(
            x.shape, x.sharding, lambda index, value=value: value[index]
        )
    return placed


def here(tree: Tree) -> Tree:
    """What all devices have alike, as one of this process has it, so that this process
    computes with it by itself. What is not alike everywhere stays as it is."""

    def own(x: Array) -> Array:
        alike = x.is_fully_replicated and not x.is_fully_addressable
        return x.addressable_data(0) if alike else x

    return tree if alone() else jax.tree.map(own, tree)


def _whole(x: Array | np.ndarray) -> np.ndarray:
    if not isinstance(x, jax.Array):
        return x
    if x.is_fully_addressable or x.is_fully_replicated:
        return jax.device_get(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def _broadcast(value: np.ndarray) -> np.ndarray:
    # As bytes: it is a sum with zeros, which would not keep -0.0 and NaN as they are.
    flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    sent = np.asarray(multihost_utils.broadcast_one_to_all(flat))
    return sent.view(value.dtype).reshape(value.shape)
