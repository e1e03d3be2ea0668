"""Networks of images: a 3x3 convolution, and IMPALA's shallow and deep ones.

Images are [C, H, W, B] here. A convolution is a product with patches, of as many rows
of places at a time as stay in the cache.
"""

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import numpy as np

from .activations import Activation, relu
from .arrays import Arrays

Shape = tuple[int, int, int]
"""Channels, height and width."""
# Numbers in the patches of one product, 2 MB.
_CHUNK = 2**19


class Bound(NamedTuple):
    """A network of images, of so many environments."""

    inputs: np.ndarray
    """[C, H, W, B], which is written before `run`."""
    run: Callable[[], object]


class Conv:
    """A convolution: its matrix, and which places it has."""

    def __init__(
        self, arrays: Arrays, name: str, shape: Shape, features: int,
        *, window: int = 3, stride: int = 1, padding: int = 1,
    ):  # fmt: skip
        self.kernel = arrays.linear(name, window**2 * shape[0], features)
        self._given, self._window = shape, window
        self._stride, self._padding = stride, padding
        height, width = (
            (size + 2 * padding - window) // stride + 1 for size in shape[1:]
        )
        self.shape: Shape = (features, height, width)

    def bind(self, num_envs: int, outputs: np.ndarray) -> Bound:
        """Writes its outputs [F, H_, W_, B], without activation."""
        (channels, *sides), pad, stride = self._given, self._padding, self._stride
        larger = [size + 2 * pad for size in sides]
        padded = np.zeros((channels, *larger, num_envs), np.float32)
        inside = [slice(pad, pad + size) for size in sides]
        windows = np.lib.stride_tricks.sliding_window_view(
            padded, (self._window, self._window), axis=(1, 2)
        )[:, ::stride, ::stride].transpose(4, 5, 0, 1, 2, 3)
        depth, (features, height, width) = prod(windows.shape[:3]), self.shape
        most = max(1, min(height, _CHUNK // (depth * width * num_envs)))
        patches = np.ones((depth + 1, most * width * num_envs), np.float32)
        parts = []
        for start in range(0, height, most):
            window = windows[:, :, :, start : start + most]
            used = patches[:, : prod(window.shape[3:])]
            written = outputs[:, start : start + most].reshape(features, -1)
            parts.append((window, used[:-1].reshape(window.shape), used, written))

        def run() -> None:
            for window, target, used, written in parts:
                np.copyto(target, window)
                np.matmul(self.kernel, used, out=written)

        return Bound(padded[:, inside[0], inside[1]], run)


class Single:
    """One 3x3 convolution without padding."""

    def __init__(
        self, arrays: Arrays, name: str, shape: Shape, channels: int,
        activation: Activation,
    ):  # fmt: skip
        name = f"{name}.Linear_0"
        self.first = Conv(arrays, name, shape, channels, padding=0)
        self.shape, self._activation = self.first.shape, activation

    def bind(self, num_envs: int, outputs: np.ndarray) -> Bound:
        inputs, convolve = self.first.bind(num_envs, outputs)

        def run() -> None:
            convolve()
            self._activation(outputs, out=outputs)

        return Bound(inputs, run)


class Shallow:
    """Two strided convolutions."""

    def __init__(self, arrays: Arrays, name: str, shape: Shape):
        settings = ((16, 8, 4), (32, 4, 2))
        self._layers: list[Conv] = []
        for i, (features, window, stride) in enumerate(settings):
            conv = Conv(
                arrays, f"{name}.Conv_{i}", shape, features,
                window=window, stride=stride, padding=0,
            )  # fmt: skip
            shape = conv.shape
            self._layers.append(conv)
        self.first, self.shape = self._layers[0], shape

    def bind(self, num_envs: int, outputs: np.ndarray) -> Bound:
        first, second = self._layers
        between = np.empty((*first.shape, num_envs), np.float32)
        inputs, begin = first.bind(num_envs, between)
        middle, end = second.bind(num_envs, outputs)

        def run() -> None:
            begin()
            relu(between, out=middle)
            end()
            relu(outputs, out=outputs)

        return Bound(inputs, run)


class Deep:
    """Fifteen convolutions in three sections, each with two residual blocks."""

    def __init__(self, arrays: Arrays, name: str, shape: Shape):
        self._sections: list[tuple[Conv, list[tuple[Conv, Conv]]]] = []
        for i, features in enumerate((16, 32, 32)):
            conv = Conv(arrays, f"{name}.Conv_{i}", shape, features)
            _, height, width = conv.shape
            shape = (features, (height + 1) // 2, (width + 1) // 2)
            blocks = []
            for j in (2 * i, 2 * i + 1):
                names = (f"{name}.Residual_{j}.Conv_{k}" for k in (0, 1))
                one, other = (Conv(arrays, x, shape, features) for x in names)
                blocks.append((one, other))
            self._sections.append((conv, blocks))
        self.first, self.shape = self._sections[0][0], shape

    def bind(self, num_envs: int, outputs: np.ndarray) -> Bound:
        bound = [_section(*parts, num_envs) for parts in self._sections]
        inputs = [section.inputs for section, _ in bound]
        stream = [after for _, after in bound]

        def run() -> None:
            for (section, after), following in zip(
                bound, [*inputs[1:], None], strict=True
            ):
                section.run()
                if following is not None:
                    np.copyto(following, after)
            relu(stream[-1], out=outputs)

        return Bound(inputs[0], run)


def _section(
    conv: Conv, blocks: list[tuple[Conv, Conv]], num_envs: int
) -> tuple[Bound, np.ndarray]:
    """A section of `Deep`, and what it writes."""
    wide = np.empty((*conv.shape, num_envs), np.float32)
    inputs, convolve = conv.bind(num_envs, wide)
    pooled = MaxPool(wide)
    stream = pooled.outputs
    between, added = np.empty_like(stream), np.empty_like(stream)
    residuals = [
        (one.bind(num_envs, between), other.bind(num_envs, added))
        for one, other in blocks
    ]

    def run() -> None:
        convolve()
        pooled.run()
        for one, other in residuals:
            relu(stream, out=one.inputs)
            one.run()
            relu(between, out=other.inputs)
            other.run()
            np.add(stream, added, out=stream)

    return Bound(inputs, run), stream


class MaxPool:
    """Maxima of 3 x 3 pixels around every second one, of images [C, H, W, B]; borders
    count as -inf."""

    def __init__(self, images: np.ndarray):
        self._steps = []
        for axis in (1, 2):
            size = images.shape[axis]
            count, before = (size + 1) // 2, size % 2
            shape = list(images.shape)
            shape[axis] = size + before + 1
            padded = np.full(shape, -np.inf, np.float32)
            inside = _along(axis, slice(before, before + size))
            thirds = [
                padded[_along(axis, slice(i, i + 2 * count - 1, 2))] for i in range(3)
            ]
            found = np.empty_like(thirds[0])
            self._steps.append((images, padded[inside], thirds, found))
            images = found
        self.outputs = images

    def run(self) -> None:
        for images, inside, (one, two, three), found in self._steps:
            np.copyto(inside, images)
            np.maximum(one, two, out=found)
            np.maximum(found, three, out=found)


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, part)
