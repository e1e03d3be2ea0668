"""A leaf of the observations, and how the network reads it."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from .arrays import Arrays

Copy = Callable[[np.ndarray], object]
Moved = Callable[[np.ndarray], np.ndarray]


class Input:
    """A leaf [B, *given]: in which units it is, and where an image has its channels."""

    def __init__(self, spec: Mapping[str, Any], arrays: Arrays, index: int, clip: Any):
        """
        Args:
          index: its place among the leaves, by which statistics are named.
          clip: of observations that are normalised.
        """
        self.name, self.given = spec["name"], tuple(spec["shape"])
        self.is_mask = spec["kind"] == "mask"
        """It says what may be done, and is read by the policy alone."""
        counted = {"discrete": "num_values", "multi_discrete": "nvec"}
        self._values: np.ndarray | None = None
        """Integers below these numbers are read as a one at the place of each."""
        if spec["kind"] in counted:
            self._values = np.ravel(spec[counted[spec["kind"]]])
        self.divisor = np.float32(1)
        """By which all is divided, which the first product can do."""
        self.channels = spec.get("channels")
        self._mean = self._scale = self._clip = None
        if "scale" in spec:
            self._scaled(
                *(np.asarray(spec["scale"][x], np.float32) for x in ("low", "width"))
            )
        if f"statistics.mean.{index}" in arrays:
            mean, variance = (
                arrays.get(f"statistics.{x}.{index}", *self.given)
                for x in ("mean", "variance")
            )
            self._mean, self._clip = mean, np.float32(clip)
            self._scale = np.float32(1) / np.sqrt(variance + np.float32(1e-8))

    def _scaled(self, low: np.ndarray, width: np.ndarray) -> None:
        if not low.any() and not np.ptp(width):
            self.divisor = width.flat[0]
        else:
            self._mean = np.broadcast_to(low, self.given)
            self._scale = np.broadcast_to(1 / width, self.given)

    @property
    def size(self) -> int:
        """Numbers that a dense layer reads of it."""
        return prod(self.given) if self._values is None else int(self._values.sum())

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        given = self.given
        if self.channels == "none":
            return 1, *given
        return given if self.channels == "first" else (given[2], *given[:2])

    def dense(self, rows: np.ndarray) -> Copy:
        """Writes a leaf to rows [size, B]."""
        if self._values is not None:
            values = np.concatenate([np.arange(x) for x in self._values])[:, None]
            if not self.given:  # chosen from one row it would be copied
                return lambda leaf: np.equal(leaf, values, out=rows)
            which = np.repeat(np.arange(len(self._values)), self._values)
            return lambda leaf: np.equal(
                leaf.reshape(len(leaf), -1).T[which], values, out=rows
            )
        return self._copier(rows.reshape(*self.given, -1), lambda leaf: leaf)

    def picture(self, target: np.ndarray) -> Copy:
        """Writes a leaf to an image [C, H, W, B]."""
        moves: dict[Any, Moved] = {
            "none": lambda leaf: leaf[:, None],
            "first": lambda leaf: leaf,
            "last": lambda leaf: np.moveaxis(leaf, 3, 1),
        }
        return self._copier(target, moves[self.channels])

    def _copier(self, target: np.ndarray, moved: Moved) -> Copy:
        """Writes a leaf to the target [*shape, B] in the network's units.

        Args:
          moved: from axes of leaves [B, *given] to [B, *shape].
        """
        axes = (*range(1, target.ndim), 0)
        if self._mean is None or self._scale is None:
            return lambda leaf: np.copyto(target, moved(leaf).transpose(axes))
        mean, scale = (
            moved(x[None]).transpose(axes) for x in (self._mean, self._scale)
        )
        clip = self._clip

        def copy(leaf: np.ndarray) -> None:
            np.subtract(moved(leaf).transpose(axes), mean, out=target)
            np.multiply(target, scale, out=target)
            if clip is not None:
                np.maximum(target, -clip, out=target)
                np.minimum(target, clip, out=target)

        return copy
