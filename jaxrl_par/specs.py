"""What observations and actions may be. Nothing here imports JAX, so that the processes
of simulators can know it: others take these names from `types`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

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
    """The integers 0 .. num_values - 1."""

    num_values: int
    shape: tuple[int, ...] = ()
    dtype: np.dtype = np.dtype(np.int32)


Spec = Box | Discrete
Specs = Any
"""A pytree whose leaves are specs: a NamedTuple or dict of them, or a single one."""
