"""A state in numpy that threads read and change at the same time, without a lock.

A writer copies the state, computes a new one, and adds the difference, element by
element, to the current values, which others may have changed meanwhile. Elements that
it does not change are not written. Two threads that write the same element at the same
instant may leave the change of one: that is lost, and how often it happens is counted,
in one more element of every array of floats, to which every writer adds 1.

Integers are exact, under a lock of their own: a step that is not counted would be
missing for ever.

Source: Niu et al., arXiv:1106.5730.
"""

import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.types import State


class Snapshot(NamedTuple):
    """What was read, leaf by leaf, as others may have been writing."""

    state: State
    arrays: list[np.ndarray]
    """Its memory, with the counting element of each."""


class Shared:
    """A state that has no owner."""

    def __init__(self, state: State):
        """
        Raises:
          ValueError: a leaf is neither of floats nor of integers.
        """
        for path, leaf in jax.tree.leaves_with_path(state):
            if not jnp.issubdtype(leaf.dtype, np.number):
                raise ValueError(
                    f"changes are added, and {leaf.dtype} cannot be:"
                    f" state{jax.tree_util.keystr(path)}"
                )
        # Never given to JAX, which on CPU would share their memory and not copy it.
        leaves, self._tree = jax.tree.flatten(jax.tree.map(np.array, state))
        self._shapes = [leaf.shape for leaf in leaves]
        self._arrays = [_counted(leaf, 0) for leaf in leaves]
        self._writes = 0
        self._counting = threading.Lock()

    def read(self) -> Snapshot:
        """A copy."""
        # Array by array, while others write: elements may be of different moments. That
        # is what Hogwild puts up with.
        arrays = [x.copy() for x in self._arrays]
        return Snapshot(self._state(arrays), arrays)

    def write(self, old: Snapshot, new: State) -> bool:
        """Adds what changed from `old`, which was read, to `new`; whether another
        thread wrote in between."""
        raced = False
        leaves = jax.tree.leaves(new)
        for x, before, leaf in zip(self._arrays, old.arrays, leaves, strict=True):
            if _is_integer(x):
                # A step that is lost would shift learning rates and phases for ever.
                with self._counting:
                    raced |= _add_change(x, before, np.ravel(leaf))
            else:
                # The counting element is written in the same way as all others, so it
                # is overwritten as often as they are.
                raced |= _add_change(x, before, _counted(leaf, before[-1] + 1))
        # Two steps, read and write: without the lock one of two would be missing.
        with self._counting:
            self._writes += 1
        return raced

    def lost(self) -> float:
        """Writes since the last call that were lost, mean over arrays of floats.

        Called while no thread writes.
        """
        floats = [x for x in self._arrays if not _is_integer(x)]
        lost = self._writes - float(np.mean([x[-1] for x in floats])) if floats else 0.0
        for x in floats:
            x[-1] = 0
        self._writes = 0
        return lost

    def _state(self, arrays: list[np.ndarray]) -> State:
        leaves = [
            (x if _is_integer(x) else x[:-1]).reshape(shape)
            for x, shape in zip(arrays, self._shapes, strict=True)
        ]
        return self._tree.unflatten(leaves)


def _is_integer(x: np.ndarray) -> bool:
    return bool(jnp.issubdtype(x.dtype, np.integer))


def _counted(leaf: np.ndarray, count: Any) -> np.ndarray:
    """Raveled, with a counting element behind floats."""
    leaf = np.asarray(leaf)
    if _is_integer(leaf):
        return leaf.ravel()
    counted = np.empty(leaf.size + 1, leaf.dtype)
    counted[:-1] = leaf.ravel()
    counted[-1] = count
    return counted


def _add_change(x: np.ndarray, old: np.ndarray, new: np.ndarray) -> bool:
    """`x += new - old` in place; whether `x` was no longer `old`.

    Where it was, it becomes `new` in all its bits, which the sum may miss by rounding.
    """
    # Bits, as NaN differs from itself, and -0 is another value than 0.
    changed = _bits(new) != _bits(old)
    # From here to the last line others may write. What they write is then overwritten
    # where `x` looks untouched, and may be where both add: these are the lost updates.
    untouched = _bits(x) == _bits(old)
    np.copyto(x, new, where=changed & untouched)
    np.add(x, new - old, out=x, where=changed & ~untouched)
    return not np.all(untouched)


def _bits(x: np.ndarray) -> np.ndarray:
    return x.view(f"u{x.itemsize}")
