"""Recurrent memory: LSTM and GRU, as one product with features and memory.

Halves of sigmoid's inputs let one tanh serve several gates:
sigmoid(x) = (1 + tanh(x / 2)) / 2.
"""

from collections.abc import Callable, Sequence

import numpy as np

from .activations import HALF, ZERO
from .arrays import Arrays, fused

Columns = Sequence[np.ndarray]
"""Leaves of a carry, [width, B]."""


class _Recurrent:
    """What both have in common."""

    num_blocks: int
    """Of `width` rows each, in `input`, `recurrent` and `bias`."""
    num_sigmoids: int

    def __init__(self, arrays: Arrays, name: str, num_features: int, width: int):
        self.width = self.room = width
        """The outputs, and rows below the features for those of the step before."""
        columns = self.num_blocks * width
        w = arrays.get(f"{name}.input", num_features, columns)
        u = arrays.get(f"{name}.recurrent", width, columns)
        bias = arrays.get(f"{name}.bias", columns)
        blocks = np.split(fused([w, u], bias), self.num_blocks)
        self.reader = self._gates(blocks, arrays, name, num_features)
        """[4 width, num_features + width + 1]: all that the memory reads."""

    def _gates(
        self, blocks: list[np.ndarray], arrays: Arrays, name: str, num_features: int
    ) -> np.ndarray:
        raise NotImplementedError

    def _cell(self, blocks: Columns, columns: Columns) -> tuple[np.ndarray, ...]:
        """What is remembered, from gates behind their functions."""
        raise NotImplementedError

    def bind(
        self, num_envs: int, inputs: np.ndarray, outputs: np.ndarray
    ) -> Callable[[np.ndarray, Columns], tuple[np.ndarray, ...]]:
        """A function of (first, carry) that returns the carry and writes the outputs.

        Args:
          inputs: [num_features + room + 1, B], of which the features are written.
          outputs: [width, B]
        """
        old = inputs[-1 - self.width : -1]
        gates = np.empty((4 * self.width, num_envs), np.float32)
        blocks = np.split(gates, 4)
        sigmoids = gates[: self.num_sigmoids * self.width]
        tanhs = self._tanhs(gates)

        def remember(first: np.ndarray, carry: Columns) -> tuple[np.ndarray, ...]:
            columns = [leaf.T for leaf in carry]
            if np.count_nonzero(first):
                columns = [np.where(first, ZERO, leaf) for leaf in columns]
            np.copyto(old, columns[-1])
            np.dot(self.reader, inputs, out=gates)
            np.tanh(tanhs, out=tanhs)
            np.multiply(sigmoids, HALF, out=sigmoids)
            np.add(sigmoids, HALF, out=sigmoids)
            after = self._cell(blocks, columns)
            np.copyto(outputs, after[-1])
            return tuple(leaf.T for leaf in after)

        return remember

    def _tanhs(self, gates: np.ndarray) -> np.ndarray:
        """The part of the gates that tanh is taken of at once."""
        return gates


class LSTM(_Recurrent):
    """Carry: cell and hidden."""

    num_blocks, num_sigmoids = 4, 3

    def _gates(self, blocks, arrays, name, num_features):
        i, f, g, o = blocks
        f[:, -1] += 1
        return np.concatenate([i / 2, f / 2, o / 2, g])

    def _cell(self, blocks, columns):
        i, f, o, g = blocks
        cell = f * columns[0]
        i *= g
        cell += i
        hidden = np.tanh(cell)
        hidden *= o
        return cell, hidden


class GRU(_Recurrent):
    """Carry: hidden."""

    num_blocks, num_sigmoids = 3, 2

    def _gates(self, blocks, arrays, name, num_features):
        d = arrays.get(f"{name}.candidate_bias", self.width)
        r, z, n = blocks
        # The reset gate comes between what the candidate reads of features and memory.
        of_memory = np.zeros_like(n)
        of_memory[:, num_features:-1] = n[:, num_features:-1]
        of_memory[:, -1] = d
        n[:, num_features:-1] = 0
        return np.concatenate([r / 2, z / 2, n, of_memory])

    def _tanhs(self, gates):
        return gates[: 2 * self.width]

    def _cell(self, blocks, columns):
        r, z, n, of_memory = blocks
        r *= of_memory
        n += r
        np.tanh(n, out=n)
        hidden = columns[0] - n
        hidden *= z
        hidden += n
        return (hidden,)
