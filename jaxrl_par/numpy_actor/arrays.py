"""The actor's arrays by name, each checked when it is read."""

from collections.abc import Mapping, Sequence

import numpy as np


class ActorError(Exception):
    """The folder holds no actor that can be used, or the actor cannot read its input.

    The message says what would help.
    """


class Arrays:
    """The arrays of a folder, or of a learner."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._arrays = arrays

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def get(self, name: str, *shape: int) -> np.ndarray:
        """The array, float32.

        Raises:
          ActorError: it is missing, or of another shape or dtype.
        """
        array = self._arrays.get(name)
        if array is None or array.shape != shape or array.dtype != np.float32:
            found = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise ActorError(f"{name} must be float32 {shape}, found {found}")
        return array

    def of(self, name: str) -> np.ndarray:
        """The array, whatever its shape is."""
        return self._arrays[name]

    def linear(self, name: str, rows: int, columns: int) -> np.ndarray:
        """The matrix [columns, rows + 1] of a dense layer, as `fused`."""
        kernel = self.get(f"{name}.kernel", rows, columns)
        return fused([kernel], self.get(f"{name}.bias", columns))


def fused(kernels: Sequence[np.ndarray], bias: np.ndarray) -> np.ndarray:
    """[F, D + 1] of kernels [D_i, F] and bias [F]: its last column meets the ones."""
    return np.concatenate([*kernels, bias[None]]).T.copy()
