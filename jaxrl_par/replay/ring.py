"""The newest N items, each drawn as often as every other.

An item is a pytree: one transition, or a whole sequence with what belongs to it. The
ring is one array for each leaf, items first, so that an item lies in one piece. Donate
what holds it: otherwise the ring is copied whenever items are added.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jaxrl_par.types import PRNGKey


class Ring(NamedTuple):
    """N items at most, the oldest of which is overwritten next."""

    items: PyTree
    """Leaves [N, ...]."""
    next: Int[Array, ""]
    """Where the next item goes."""
    size: Int[Array, ""]
    """Items that there are."""
    laps: Int[Array, ""]
    """How often it was written to its end."""

    def generation(self, slot: Int[Array, " K"]) -> Int[Array, " K"]:
        """How often each of these slots was written: an item that was overwritten since
        is known by another number."""
        return self.laps + (slot < self.next).astype(jnp.int32)


def empty(batch: PyTree, capacity: int) -> Ring:
    """A ring for items like those of a batch [K, ...], added K at a time.

    Args:
      batch: arrays, or their shapes and dtypes.

    Raises:
      ValueError: `capacity` is no multiple of K, or 0.
    """
    num_items = jax.tree.leaves(batch)[0].shape[0]
    if capacity < 1 or capacity % num_items:
        raise ValueError(
            f"capacity must be a multiple of the {num_items} items that are added at a"
            f" time, got {capacity}"
        )
    items = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape[1:]), x.dtype), batch)
    return Ring(items, jnp.int32(0), jnp.int32(0), jnp.int32(0))


def add(ring: Ring, batch: PyTree) -> Ring:
    """The ring with K more items, in place of the oldest K once it is full.

    Raises:
      ValueError: the batch is not of the items' shapes, or K does not divide N.
    """
    num_items = jax.tree.leaves(batch)[0].shape[0]
    capacity = jax.tree.leaves(ring.items)[0].shape[0]
    if capacity % num_items:
        raise ValueError(f"{num_items} items do not divide the capacity, {capacity}")

    def write(items: Array, new: Array) -> Array:
        if items.shape[1:] != new.shape[1:] or items.dtype != new.dtype:
            raise ValueError(
                f"items are {items.dtype}{list(items.shape[1:])}, got"
                f" {new.dtype}{list(new.shape[1:])}"
            )
        # One piece of memory, so the ring is written where it is.
        return jax.lax.dynamic_update_slice_in_dim(items, new, ring.next, axis=0)

    items = jax.tree.map(write, ring.items, batch)
    size = jnp.minimum(ring.size + num_items, capacity)
    end = ring.next + num_items
    return Ring(items, end % capacity, size, ring.laps + end // capacity)


def sample(ring: Ring, key: PRNGKey, num_items: int) -> PyTree:
    """Items [num_items, ...], drawn with replacement. There must be at least one."""
    index = jax.random.randint(key, (num_items,), 0, ring.size)
    return jax.tree.map(lambda x: x[index], ring.items)
