"""From observations to features: dense layers, behind networks of the images."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .activations import ACTIVATIONS, relu
from .arrays import ActorError, Arrays
from .images import Deep, Shallow, Single
from .inputs import Input

_IMAGE_NETWORKS = {"shallow": Shallow, "deep": Deep}


class Torso:
    """The weights of a torso, and what it reads.

    With shallow and deep, dense layers read images alone, and other leaves join their
    outputs as features.
    """

    def __init__(self, config: Mapping[str, Any], arrays: Arrays, name: str):
        network, clip = config["network"], (config["normalization"] or {}).get("clip")
        self.inputs = [
            Input(spec, arrays, index, clip)
            for index, spec in enumerate(config["observations"])
        ]
        self._activation = ACTIVATIONS[network["activation"]]
        if network["torso"] in _IMAGE_NETWORKS:
            self._activation = relu
        self._images = self._read_images(network, arrays, name)
        late = network["torso"] in _IMAGE_NETWORKS
        seen = [x for x in self.inputs if not x.is_mask]
        self._before = [x for x in seen if not late or x in self._images]
        self._after = [x for x in seen if x not in self._before]
        self._sizes = [self._size(self._before), *network["widths"]]
        self._layers = [
            arrays.linear(f"{name}.MLP_0.Linear_{i}", *pair)
            for i, pair in enumerate(pairwise(self._sizes))
        ]
        self.num_features = self._sizes[-1] + self._size(self._after)
        if self._layers:
            self._order(self._layers[0], self._before, 0)

    def _read_images(
        self, network: Mapping[str, Any], arrays: Arrays, name: str
    ) -> dict[Input, Any]:
        """The networks of images, by what they read."""
        found, torso = {}, network["torso"]
        images = [x for x in self.inputs if x.channels and torso != "mlp"]
        for index, leaf in enumerate(images):
            if torso in _IMAGE_NETWORKS:
                module = f"{name}.{torso.title()}_{index}"
                image = _IMAGE_NETWORKS[torso](arrays, module, leaf.image)
            else:
                module = f"{name}.PatchConv_{index}"
                image = Single(
                    arrays, module, leaf.image, network["channels"], self._activation
                )
            # Zeros around an image stay what they are.
            image.first.kernel[:, :-1] /= leaf.divisor
            found[leaf] = image
        return found

    def _size(self, inputs: Sequence[Input]) -> int:
        return sum(self._size_of(x) for x in inputs)

    def _size_of(self, leaf: Input) -> int:
        image = self._images.get(leaf)
        return leaf.size if image is None else int(np.prod(image.shape))

    def order(self, reader: np.ndarray) -> None:
        """Lets the matrix [F, num_features ...] that reads the features expect leaves
        among them as they are kept here."""
        if not self._layers:
            self._order(reader, self._before, 0)
        self._order(reader, self._after, self._sizes[-1])

    def _order(self, reader: np.ndarray, inputs: Sequence[Input], start: int) -> None:
        for leaf in inputs:
            size = self._size_of(leaf)
            columns = reader[:, start : start + size]
            if leaf in self._images:
                # In training the filters of a place are neighbours, here its places.
                filters, *_ = self._images[leaf].shape
                places = columns.reshape(len(reader), -1, filters)
                columns[:] = places.swapaxes(1, 2).reshape(columns.shape)
            else:
                columns /= leaf.divisor
            start += size

    def bind(
        self, num_envs: int, features: np.ndarray
    ) -> Callable[[Sequence[Any]], list[np.ndarray]]:
        """A function that reads leaves of observations and writes rows
        [num_features, B]. It returns the leaves as arrays."""
        sizes = self._sizes
        buffers = [np.ones((size + 1, num_envs), np.float32) for size in sizes[:-1]]
        rows = [x[:-1] for x in buffers] + [features[: sizes[-1]]]
        read = self._places(self._before, rows[0])
        read |= self._places(self._after, features[sizes[-1] :])
        readers = [(i, read[x]) for i, x in enumerate(self.inputs) if x in read]
        layers = list(zip(self._layers, buffers, rows[1:], strict=True))

        def run(leaves: Sequence[Any]) -> list[np.ndarray]:
            arrays = self._checked(leaves, num_envs)
            for i, copy in readers:
                copy(arrays[i])
            for layer, inputs, outputs in layers:
                np.dot(layer, inputs, out=outputs)
                self._activation(outputs, out=outputs)
            return arrays

        return run

    def _checked(self, leaves: Sequence[Any], num_envs: int) -> list[np.ndarray]:
        if len(leaves) != len(self.inputs):
            raise ActorError(
                f"an observation has {len(self.inputs)} arrays, got {len(leaves)}"
            )
        found = [np.asarray(leaf) for leaf in leaves]
        for known, leaf in zip(self.inputs, found, strict=True):
            if leaf.shape != (num_envs, *known.given):
                raise ActorError(
                    f"{known.name} must be of shape {(num_envs, *known.given)}, got"
                    f" {leaf.shape}"
                )
        return found

    def _places(
        self, inputs: Sequence[Input], rows: np.ndarray
    ) -> dict[Input, Callable[[np.ndarray], object]]:
        """For each leaf a function that reads it to its rows."""
        found, start, num_envs = {}, 0, rows.shape[1]
        for leaf in inputs:
            own = rows[start : start + self._size_of(leaf)]
            start += len(own)
            if leaf in self._images:
                network = self._images[leaf]
                bound = network.bind(num_envs, own.reshape(*network.shape, -1))
                found[leaf] = _then(leaf.picture(bound.inputs), bound.run)
            else:
                found[leaf] = leaf.dense(own)
        return found


def _then(copy: Callable, run: Callable) -> Callable[[np.ndarray], object]:
    def read(leaf: np.ndarray) -> None:
        copy(leaf)
        run()

    return read
