"""What observations and actions may be. Nothing here imports JAX, so that the processes
of simulators can know it: others take these names from `types`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxrl_par import trees

_FEW = 8
"""Bounds that are shown one by one."""


@dataclass(frozen=True, eq=False)
class Box:
    """Arrays of one shape, bounded element by element (bounds may be infinite)."""

    shape: tuple[int, ...]
    dtype: np.dtype = np.dtype(np.float32)
    low: np.ndarray | float = -np.inf
    high: np.ndarray | float = np.inf

    def __repr__(self) -> str:
        bounds = f"{_bounds(self.low)} to {_bounds(self.high)}"
        return f"Box({self.shape}, {self.dtype}, {bounds})"

    @property
    def bounded(self) -> bool:
        """Every element has a finite lower and upper bound."""
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    @property
    def inner(self) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) in float32, rounded inwards: what is within is within the bounds,
        as the nearest float32 to a bound of float64 may not be."""
        up, wide = np.float32(np.inf), (np.asarray(self.low), np.asarray(self.high))
        with np.errstate(over="ignore"):
            low, high = (x.astype(np.float32) for x in wide)
        low = np.where(low < wide[0], np.nextafter(low, up), low)
        return low, np.where(high > wide[1], np.nextafter(high, -up), high)


def _bounds(values: np.ndarray | float) -> str:
    """In a few words, however many there are."""
    values = np.asarray(values)
    if not values.size or np.all(values == values.flat[0]):
        return f"{values.flat[0]:g}" if values.size else "nothing"
    if values.ndim == 1 and values.size <= _FEW:
        return f"[{', '.join(f'{x:g}' for x in values)}]"
    return f"[{values.min():g} .. {values.max():g}]"


@dataclass(frozen=True)
class Discrete:
    """The integers 0 .. num_values - 1.

    Streams, masks and networks have these. An environment whose own begin elsewhere
    gets `start` more, from the adapter that calls it: see `sent`.
    """

    num_values: int
    start: int = 0
    shape: tuple[int, ...] = ()
    dtype: np.dtype = np.dtype(np.int32)

    def __repr__(self) -> str:
        shape = f", shape={self.shape}" if self.shape else ""
        start = f", start={self.start}" if self.start else ""
        return f"Discrete({self.num_values}{start}{shape})"


@dataclass(frozen=True, eq=False)
class MultiDiscrete:
    """An array of integers; element i is one of 0 .. nvec[i] - 1.

    As for `Discrete`, the environment itself gets `start` more.
    """

    nvec: Any
    """Integers of 1 or more, in an array of one axis or more."""
    start: Any = 0
    """An integer for all, or one for each; kept as an array of the shape of `nvec`."""
    dtype: np.dtype = np.dtype(np.int32)

    def __post_init__(self):
        nvec, start = np.asarray(self.nvec), np.asarray(self.start)
        whole = nvec.ndim and nvec.size and nvec.dtype.kind in "iu"
        if not whole or nvec.min() < 1 or nvec.max() >= 2**31:
            raise ValueError(
                "nvec must be an array of integers, one for each choice, from 1 to what"
                f" 32 bits hold, got {self.nvec!r:.60}"
            )
        if start.dtype.kind not in "iu" or start.shape not in ((), nvec.shape):
            raise ValueError(
                f"start must be an integer, or one for each of nvec {nvec.shape}, got"
                f" {self.start!r:.60}"
            )
        # Of their own, and of one dtype: equal specs are equal whoever made them.
        start = np.broadcast_to(start, nvec.shape)
        for name, x in (("nvec", nvec), ("start", start)):
            object.__setattr__(self, name, x.astype(np.int32))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.nvec.shape

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values of each choice, in the order of the array's elements."""
        return tuple(self.nvec.ravel().tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MultiDiscrete) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        start = f", start={self.start.tolist()}" if np.any(self.start) else ""
        return f"MultiDiscrete({self.nvec.tolist()}{start})"

    @property
    def _key(self) -> tuple[Any, ...]:
        return self.shape, self.sizes, self.start.tobytes(), np.dtype(self.dtype)


Spec = Box | Discrete | MultiDiscrete
Specs = Any
"""A pytree whose leaves are specs: a NamedTuple or dict of them, or a single one."""


def sent(action_spec: Specs, action: Any) -> Any:
    """Actions [*B, ...] of a stream as their environment takes them: integers count
    from its `start`. Of NumPy or of JAX, as they are given."""

    def leaf(spec: Spec, x: Any) -> Any:
        if isinstance(spec, Box) or not np.any(spec.start):
            return x
        return x + np.broadcast_to(np.asarray(spec.start, x.dtype), x.shape)

    return trees.map_leaves(leaf, action_spec, action)
