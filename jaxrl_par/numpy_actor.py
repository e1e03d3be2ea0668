"""A trained actor on a machine that has NumPy, and neither JAX nor jaxrl_par.

This file lies in the folder of the actor, and all of the package that acting needs:

    from numpy_actor import Actor

    actor = Actor.load(".")
    carry = actor.initial_carry(1)
    first = np.ones(1, bool)  # an episode starts
    action, carry = actor.step(obs, first, carry)

Shapes are those of training: B environments come first. Inside they come last, [D, B],
so that parts of a buffer are contiguous, whatever B is: layers write their outputs to
where the next product reads them, and nothing is concatenated. A row of ones below the
inputs of each product carries its bias.

With many environments OpenBLAS takes all cores; OPENBLAS_NUM_THREADS=1 keeps it on one.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
"""Version of the folders that this file writes and reads."""
CONFIG, ARRAYS = "config.json", "actor.npz"

Carry = tuple[np.ndarray, ...]
"""Memory, leaves [B, width]: (cell, hidden) of an LSTM, (hidden,) of a GRU, or ()."""
_WINDOW = 3
_ZERO, _HALF = np.float32(0), np.float32(0.5)


def _swish(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    return np.multiply(x, _HALF + _HALF * np.tanh(_HALF * x), out=out)


_ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda x, out: np.maximum(x, _ZERO, out=out),
    "swish": _swish,
}


class ActorError(Exception):
    """The folder holds no actor that can be used, or the actor cannot read its input.

    The message says what would help.
    """


class Actor:
    """A policy that was exported, greedy or sampled.

    Its buffers are used again in the next step: what `step` returns is the caller's,
    but only one thread can use an actor.
    """

    def __init__(self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]):
        """An actor of what `read_config` and `read_arrays` give."""
        self.config = config
        self._weights = _Weights(config, arrays)
        self._workspace = _Workspace(self._weights, 1)

    @classmethod
    def load(cls, folder: str | Path) -> "Actor":
        """The actor of a folder that `jaxrl_par.export.folder.write` made.

        Nothing in the folder is run. Hashes find damage, not malice: who can write to
        the folder chooses the actions.

        Raises:
          ActorError: the folder is damaged or of another format, or has no NumPy form.
        """
        config = read_config(folder)
        if not config["numpy"]:
            raise ActorError(f"{folder} was exported without the form for NumPy")
        return cls(config, read_arrays(folder, config))

    def initial_carry(self, num_envs: int) -> Carry:
        """Empty memory for so many environments."""
        shape = (num_envs, self._weights.width)
        return tuple(np.zeros(shape, "f4") for _ in range(self._weights.num_leaves))

    def step(
        self,
        obs: Any,
        first: np.ndarray,
        carry: Carry,
        rng: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, Carry]:
        """Actions, int32 [B] or float32 [B, A], and the memory after them. Those of
        real numbers are within their bounds.

        Args:
          obs: arrays [B, ...] in the tuples, lists and dicts of training, or all of
            them in a list, in the order of `config["observations"]`.
          first: [B], where an episode starts; its memory is cleared before it is read.
          carry: what the step before returned; it is not changed.
          rng: samples from the policy; by default its mode is taken.

        Raises:
          ActorError: a leaf of `obs` or `carry` has another shape than it should.
        """
        outputs, carry = self._outputs(obs, first, carry)
        settings = self._weights.settings
        if settings is None:
            chosen = outputs.argmax(axis=0) if rng is None else _sampled(outputs, rng)
            return chosen.astype(np.int32), carry
        if rng is not None:
            noise = rng.standard_normal(outputs.shape, dtype=np.float32)
            outputs = outputs + np.exp(settings["log_std"])[:, None] * noise
        if "centre" in settings:
            limit = np.float32(1 - 1e-6)
            unit = np.clip(np.tanh(outputs), -limit, limit).T
            actions = settings["centre"] + settings["half_width"] * unit
        else:
            actions = outputs.T.copy()
        low, high = self._weights.bounds
        np.minimum(np.maximum(actions, low, out=actions), high, out=actions)
        return actions, carry

    def distribution(
        self, obs: Any, first: np.ndarray, carry: Carry
    ) -> tuple[dict[str, np.ndarray], Carry]:
        """Parameters of the policy, [B, A]: logits, or mean and log_std, and the memory
        after the step; of a squashed policy, centre and half_width of the actions too.
        """
        outputs, carry = self._outputs(obs, first, carry)
        rows, settings = outputs.T.copy(), self._weights.settings
        if settings is None:
            return {"logits": rows}, carry
        equal = {name: np.tile(x, (len(rows), 1)) for name, x in settings.items()}
        return {"mean": rows} | equal, carry

    def _outputs(self, obs, first, carry) -> tuple[np.ndarray, Carry]:
        """What the last layer gives, [A, B], in a buffer, and the memory."""
        space = self._workspace
        if space.num_envs != len(first):
            space = self._workspace = _Workspace(self._weights, len(first))
        space.read(_leaves(obs))
        for layer, inputs, outputs in space.layers:
            np.dot(layer, inputs, out=outputs)
            self._weights.activation(outputs, out=outputs)
        if carry or space.carry_shapes:
            carry = space.remember(first, carry)
        np.dot(self._weights.head, space.features, out=space.outputs)
        return space.outputs, carry


class _Weights:
    """The parameters as the matrices [outputs, inputs + 1] that a step multiplies."""

    def __init__(self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]):
        network, action = config["network"], config["action"]
        self._arrays, self.kind = arrays, network["memory"]
        self.activation = _ACTIVATIONS[network["activation"]]
        torso = "params.torso" if network["shared"] else "params.actor"
        self.inputs = self._read_inputs(config, torso)
        self.sizes = [sum(x.size for x in self.inputs), *network["widths"]]
        self.layers = [
            self._linear(f"{torso}.MLP_0.Linear_{i}", *pair)
            for i, pair in enumerate(pairwise(self.sizes))
        ]
        self.width, num_features = 0, self.sizes[-1]
        self.num_leaves = {"none": 0, "gru": 1, "lstm": 2}[self.kind]
        if self.num_leaves:
            self.width = network["memory_width"]
            self.memory = self._gates(f"{torso}_memory", num_features)
            num_features = self.width
        is_discrete = action["kind"] == "discrete"
        num_outputs = action["num_values"] if is_discrete else action["shape"][0]
        kernel = self._array("params._Heads_0.policy", num_features, num_outputs)
        bias = self._array("params._Heads_0.policy_bias", num_outputs)
        self.head = _fused([kernel], bias)
        self.settings = None if is_discrete else self._continuous(network, action)
        readers = [*self.layers, self.memory if self.num_leaves else self.head]
        self._order(readers[0])

    def _array(self, name: str, *shape: int) -> np.ndarray:
        array = self._arrays.get(name)
        if array is None or array.shape != shape or array.dtype != np.float32:
            found = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise ActorError(f"{name} must be float32 {shape}, found {found}")
        return array

    def _linear(self, name: str, rows: int, columns: int) -> np.ndarray:
        kernel = self._array(f"{name}.kernel", rows, columns)
        return _fused([kernel], self._array(f"{name}.bias", columns))

    def _read_inputs(self, config: Mapping[str, Any], torso: str) -> list["_Input"]:
        inputs, num_images, network = [], 0, config["network"]
        for index, spec in enumerate(config["observations"]):
            found = _Input(spec)
            if f"statistics.mean.{index}" in self._arrays:
                shape = spec["shape"]
                found.mean = self._array(f"statistics.mean.{index}", *shape)
                variance = self._array(f"statistics.variance.{index}", *shape)
                found.scale = np.float32(1) / np.sqrt(variance + np.float32(1e-8))
                found.clip = np.float32(config["normalization"]["clip"])
            if spec.get("channels") and network["torso"] == "conv":
                found.move(spec["channels"])
                size, channels = _WINDOW**2 * found.shape[2], network["channels"]
                name = f"{torso}.PatchConv_{num_images}.Linear_0"
                found.kernel = self._linear(name, size, channels)
                found.kernel[:, :-1] /= found.divisor
                num_images += 1
            inputs.append(found)
        return inputs

    def _order(self, reader: np.ndarray) -> None:
        """Lets the matrix that reads the inputs expect them as they are kept here."""
        start = 0
        for found in self.inputs:
            columns = reader[:, start : start + found.size]
            if found.kernel is None:
                columns /= found.divisor
            else:
                # In training the filters of a place are neighbours, here its places.
                places = columns.reshape(len(reader), -1, len(found.kernel))
                columns[:] = places.swapaxes(1, 2).reshape(columns.shape)
            start += found.size

    def _gates(self, name: str, num_features: int) -> np.ndarray:
        """One matrix [4 width, num_features + width + 1] for all that a memory reads.

        Halves of sigmoid's inputs let one tanh serve all gates of an LSTM:
        sigmoid(x) = (1 + tanh(x / 2)) / 2.
        """
        width = self.width
        blocks = 4 if self.kind == "lstm" else 3
        w = self._array(f"{name}.input", num_features, blocks * width)
        u = self._array(f"{name}.recurrent", width, blocks * width)
        b = self._array(f"{name}.bias", blocks * width)
        if self.kind == "lstm":
            i, f, g, o = np.split(_fused([w, u], b), 4)
            f[:, -1] += 1
            return np.concatenate([i / 2, f / 2, o / 2, g])
        d = self._array(f"{name}.candidate_bias", width)
        r, z, n = np.split(_fused([w, u], b), 3)
        # The reset gate comes between what the candidate reads of features and memory.
        of_memory = np.zeros_like(n)
        of_memory[:, num_features:-1] = n[:, num_features:-1]
        of_memory[:, -1] = d
        n[:, num_features:-1] = 0
        return np.concatenate([r / 2, z / 2, n, of_memory])

    def _continuous(
        self, network: Mapping[str, Any], action: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """What is the same for all observations, [A]."""
        (size,) = action["shape"]
        settings = {"log_std": self._array("params._Heads_0.log_std", size)}
        low = _bounds(action["low"], size, -np.inf)
        high = _bounds(action["high"], size, np.inf)
        self.bounds = low, high
        if network["policy"] == "squashed":
            settings |= {"centre": low / 2 + high / 2, "half_width": (high - low) / 2}
        return settings


class _Input:
    """A leaf of the observations, and how it is read."""

    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    clip: np.float32 | None = None
    kernel: np.ndarray | None = None
    """Weights of the convolution that reads it, [channels, 9 C + 1]."""

    def __init__(self, spec: Mapping[str, Any]):
        self.name, self.shape = spec["name"], tuple(spec["shape"])
        self.given, self.moved = self.shape, lambda leaf: leaf
        """The shape that it comes in, and what brings it to that in which it is read,
        [B, *shape]."""
        self.num_values, self.divisor = spec.get("num_values"), np.float32(1)
        if "scale" in spec:
            low, width = (np.float32(spec["scale"][x]) for x in ("low", "width"))
            if not low.any() and not np.ptp(width):
                self.divisor = width.flat[0]
            else:
                self.mean = np.broadcast_to(low, self.shape)
                self.scale = np.broadcast_to(1 / width, self.shape)

    def move(self, channels: str) -> None:
        """Lets an image be read as [height, width, channels]."""
        if channels == "first":
            self.moved = lambda leaf: np.moveaxis(leaf, 1, -1)
        elif channels == "none":
            self.moved = lambda leaf: leaf[..., None]
        one = self.moved(np.empty((1, *self.given), np.bool_))
        self.shape = one.shape[1:]
        if self.mean is not None and self.scale is not None:
            both = (self.mean[None], self.scale[None])
            self.mean, self.scale = (self.moved(x)[0] for x in both)

    @property
    def size(self) -> int:
        """Numbers that the first dense layer reads of it."""
        if self.kernel is not None:
            return prod(self.places) * len(self.kernel)
        return prod(self.shape) if self.num_values is None else self.num_values

    @property
    def places(self) -> tuple[int, int]:
        """Height and width after the convolution."""
        return self.shape[0] - _WINDOW + 1, self.shape[1] - _WINDOW + 1

    def reader(
        self, rows: np.ndarray, activation: Callable
    ) -> Callable[[np.ndarray], object]:
        """A function that writes a leaf [B, ...] to its rows [size, B]."""
        if self.num_values is not None:
            values = np.arange(self.num_values)[:, None]
            return lambda leaf: np.equal(leaf, values, out=rows)
        if self.kernel is None:
            return self._copier(rows.reshape(*self.shape, -1))
        num_envs, kernel = rows.shape[1], self.kernel
        image = np.empty((*self.shape, num_envs), np.float32)
        copy = self._copier(image)
        patches = np.ones((kernel.shape[1], prod(self.places) * num_envs), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(
            image, (_WINDOW, _WINDOW), axis=(0, 1)
        ).transpose(4, 5, 2, 0, 1, 3)
        target = patches[:-1].reshape(windows.shape)
        outputs = rows.reshape(len(kernel), -1)

        def read(leaf: np.ndarray) -> None:
            copy(leaf)
            np.copyto(target, windows)
            np.dot(kernel, patches, out=outputs)
            activation(outputs, out=outputs)

        return read

    def _copier(self, target: np.ndarray) -> Callable[[np.ndarray], object]:
        """A function that writes a leaf [B, *shape] to [*shape, B], normalised."""
        axes = (*range(1, target.ndim), 0)
        if self.mean is None or self.scale is None:
            return lambda leaf: np.copyto(target, leaf.transpose(axes))
        mean, scale = self.mean[..., None], self.scale[..., None]
        clip = self.clip

        def copy(leaf: np.ndarray) -> None:
            np.subtract(leaf.transpose(axes), mean, out=target)
            np.multiply(target, scale, out=target)
            if clip is not None:
                np.maximum(target, -clip, out=target)
                np.minimum(target, clip, out=target)

        return copy


class _Workspace:
    """The buffers [D, B] of a step of so many environments, and views of them."""

    def __init__(self, weights: _Weights, num_envs: int):
        self.num_envs, self._weights = num_envs, weights
        width, sizes, activation = weights.width, weights.sizes, weights.activation
        # Beside the last features is room for what the memory holds of them.
        rows = [*sizes[:-1], sizes[-1] + width]
        buffers = [np.ones((size + 1, num_envs), np.float32) for size in rows]
        self._readers, start = [], 0
        for found in weights.inputs:
            read = found.reader(buffers[0][start : start + found.size], activation)
            shape = (num_envs, *found.given)
            self._readers.append((found.name, shape, found.moved, read))
            start += found.size
        self.layers = [
            (layer, inputs, outputs[:size])
            for layer, inputs, outputs, size in zip(
                weights.layers, buffers[:-1], buffers[1:], sizes[1:], strict=True
            )
        ]
        self.features = self._inputs = buffers[-1]
        self.outputs = np.empty((len(weights.head), num_envs), np.float32)
        self.carry_shapes = [(num_envs, width)] * weights.num_leaves
        if width:
            self._old = self._inputs[sizes[-1] : -1]
            self.features = np.ones((width + 1, num_envs), np.float32)
            self._new = self.features[:-1]
            self._gates = np.empty((4 * width, num_envs), np.float32)
            self._blocks = np.split(self._gates, 4)
            is_lstm = weights.kind == "lstm"
            self._sigmoids = self._gates[: (3 if is_lstm else 2) * width]
            self._cell = self._lstm if is_lstm else self._gru

    def read(self, leaves: Sequence[Any]) -> None:
        if len(leaves) != len(self._readers):
            raise ActorError(
                f"an observation has {len(self._readers)} arrays, got {len(leaves)}"
            )
        for leaf, reader in zip(leaves, self._readers, strict=True):
            name, shape, moved, read = reader
            leaf = np.asarray(leaf)
            if leaf.shape != shape:
                raise ActorError(f"{name} must be of shape {shape}, got {leaf.shape}")
            read(moved(leaf))

    def remember(self, first: np.ndarray, carry: Carry) -> Carry:
        """The memory after the features that were read; the head reads its output."""
        shapes = [leaf.shape for leaf in carry]
        if shapes != self.carry_shapes:
            raise ActorError(
                f"carry must have shapes {self.carry_shapes}, as of initial_carry, got"
                f" {shapes}"
            )
        columns = [leaf.T for leaf in carry]
        if np.count_nonzero(first):
            columns = [np.where(first, _ZERO, leaf) for leaf in columns]
        np.copyto(self._old, columns[-1])
        np.dot(self._weights.memory, self._inputs, out=self._gates)
        columns = self._cell(*columns)
        np.copyto(self._new, columns[-1])
        return tuple(leaf.T for leaf in columns)

    def _lstm(self, cell: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, ...]:
        i, f, o, g = self._blocks
        np.tanh(self._gates, out=self._gates)
        self._halve()
        cell = f * cell
        i *= g
        cell += i
        hidden = np.tanh(cell)
        hidden *= o
        return cell, hidden

    def _gru(self, hidden: np.ndarray) -> tuple[np.ndarray, ...]:
        r, z, n, of_memory = self._blocks
        np.tanh(self._sigmoids, out=self._sigmoids)
        self._halve()
        r *= of_memory
        n += r
        np.tanh(n, out=n)
        hidden = hidden - n
        hidden *= z
        hidden += n
        return (hidden,)

    def _halve(self) -> None:
        self._sigmoids *= _HALF
        self._sigmoids += _HALF


def read_config(folder: str | Path) -> dict[str, Any]:
    """What `config.json` says, whole and of this format.

    Raises:
      ActorError: there is none, or it is damaged or of another format.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise ActorError(
            f"{folder} is no exported actor, or not a whole one: no {path}"
        )
    return parsed_config(path)


def parsed_config(path: Path) -> dict[str, Any]:
    """As `read_config`, of a file. Raises ActorError."""
    try:
        config = json.loads(path.read_bytes())
        found = config["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ActorError(f"{path} is damaged: {error!r}") from error
    if found != FORMAT:
        raise ActorError(
            f"{path} has format {found!r}, and this program reads format {FORMAT}: use"
            " the numpy_actor.py or jaxrl_par that it came with"
        )
    if config.get("sha256") != config_hash(config):
        raise ActorError(f"{path} is damaged: its SHA-256 differs")
    return config


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of all that a config says beside it."""
    content = {name: x for name, x in config.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_file(folder: str | Path, config: Mapping[str, Any], name: str) -> bytes:
    """A file of the folder, as it was written.

    Raises:
      ActorError: it is missing or damaged.
    """
    path = Path(folder) / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ActorError(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != config["files"].get(name):
        raise ActorError(f"{path} is damaged: its SHA-256 is not that of {CONFIG}")
    return data


def read_arrays(folder: str | Path, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of the actor by name. Pickled objects are refused, not read.

    Raises:
      ActorError: the file is missing or damaged, or holds something else.
    """
    data = read_file(folder, config, ARRAYS)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    # numpy, zipfile and zlib each have errors of their own.
    except Exception as error:
        path = Path(folder) / ARRAYS
        raise ActorError(f"{path} does not hold plain arrays: {error}") from error


def _fused(kernels: Sequence[np.ndarray], bias: np.ndarray) -> np.ndarray:
    """[F, D + 1] of kernels [D_i, F] and bias [F]: its last column meets the ones."""
    return np.concatenate([*kernels, bias[None]]).T.copy()


def _bounds(given: Any, size: int, none: float) -> np.ndarray:
    """Float32 [A] of one number or one for each, of which null stands for none."""
    numbers = np.asarray(given, np.float64)  # null becomes NaN
    bounds = np.where(np.isnan(numbers), none, numbers)
    return np.broadcast_to(bounds.astype(np.float32), size)


def _sampled(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Actions [B] with probabilities softmax(logits), [A, B]."""
    weights = np.exp(logits - logits.max(axis=0))
    below = weights.cumsum(axis=0)
    # Below the total even when rounded: an action of weight 0 is never drawn.
    draw = rng.random(logits.shape[1], dtype=np.float32) * below[-1]
    return np.count_nonzero(draw >= below[:-1], axis=0)


def _leaves(tree: Any) -> list[Any]:
    """Leaves in the order of JAX."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])]
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in _leaves(part)]
    return [] if tree is None else [tree]
