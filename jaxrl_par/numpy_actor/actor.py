"""A policy that acts, step by step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import ActorError, Arrays, fused
from .files import read_arrays, read_config
from .memories import Carry, check, empty, kept, memory_of
from .policies import HEADS, Policy
from .torso import Torso


class Actor:
    """A policy that was exported, greedy or sampled.

    Its buffers are used again in the next step: what `step` returns is the caller's,
    but only one thread can use an actor.
    """

    def __init__(self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]):
        """An actor of what `read_config` and `read_arrays` give."""
        self.config = config
        self._weights = _Weights(config, Arrays(arrays))
        self._workspace = _Workspace(self._weights, 1)

    @classmethod
    def load(cls, folder: str | Path) -> "Actor":
        """The actor of a folder that `jaxrl_par.export.write` made.

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
        return empty(self.config["network"], num_envs)

    def step(
        self,
        obs: Any,
        first: np.ndarray,
        carry: Carry,
        rng: np.random.Generator | None = None,
    ) -> tuple[Any, Carry]:
        """Actions, and the memory after them. They are as the environment takes them:
        int32 [B, ...], which begin where its own do, or float32 [B, ...] within their
        bounds; of several parts, in the dict or tuple that they are there.

        Args:
          obs: arrays [B, ...] in the tuples, lists and dicts of training, or all of
            them in a list, in the order of `config["observations"]`. Integers count
            from 0 there, as in training; so does a last action among them.
          first: [B], where an episode starts; its memory is cleared before it is read.
          carry: what the step before returned; it is not changed.
          rng: samples from the policy; by default its mode is taken.

        Raises:
          ActorError: a leaf of `obs` or `carry` has another shape than it should.
        """
        outputs, masks, carry = self._outputs(obs, first, carry)
        return self._weights.policy.actions(outputs, masks, rng), carry

    def distribution(
        self, obs: Any, first: np.ndarray, carry: Carry
    ) -> tuple[dict[str, np.ndarray], Carry]:
        """Parameters of the policy, [B, A]: logits, or mean and log_std, and the memory
        after the step; of a squashed policy, centre and half_width of the actions too.
        Those of several parts have the part's name before their own, as
        "parts.steer.mean".
        """
        outputs, masks, carry = self._outputs(obs, first, carry)
        return self._weights.policy.parameters(outputs, masks), carry

    def _outputs(
        self, obs: Any, first: np.ndarray, carry: Carry
    ) -> tuple[np.ndarray, list[Any], Carry]:
        """What the last layer gives, [K, B], in a buffer, masks by part, and the
        memory."""
        space = self._workspace
        if space.num_envs != len(first):
            space = self._workspace = _Workspace(self._weights, len(first))
        leaves = space.read(_leaves(obs))
        if carry or self._weights.kept:
            check(carry, self._weights.kept, len(first))
            carry = space.remember(first, carry)
        np.dot(self._weights.head, space.features, out=space.outputs)
        places = self._weights.policy.masks
        masks = [None if i is None else _columns(leaves[i]) for i in places]
        return space.outputs, masks, carry


class _Weights:
    """The parameters as the matrices [outputs, inputs + 1] that a step multiplies."""

    def __init__(self, config: Mapping[str, Any], arrays: Arrays):
        network = config["network"]
        name = "params.torso" if network["shared"] else "params.actor"
        self.kept = kept(network)
        self.torso = Torso(config, arrays, name)
        width = self.torso.num_features
        self.memory = memory_of(network, arrays, name, width)
        if self.memory is not None:
            width = self.memory.width
        self.policy = Policy(config, arrays)
        number = sum(self.policy.sizes)
        kernel = arrays.get(f"{HEADS}.policy", width, number)
        self.head = fused([kernel], arrays.get(f"{HEADS}.policy_bias", number))
        self.torso.order(self.head if self.memory is None else self.memory.reader)


class _Workspace:
    """The buffers [D, B] of a step of so many environments, and views of them."""

    def __init__(self, weights: _Weights, num_envs: int):
        self.num_envs, memory = num_envs, weights.memory
        number = weights.torso.num_features
        # Beside the features is room for what the memory reads with them.
        rows = number + (0 if memory is None else memory.room)
        self.features = read = np.ones((rows + 1, num_envs), np.float32)
        self.read = weights.torso.bind(num_envs, read[:number])
        self.outputs = np.empty((len(weights.head), num_envs), np.float32)
        if memory is not None:
            self.features = np.ones((memory.width + 1, num_envs), np.float32)
            self.remember = memory.bind(num_envs, read, self.features[:-1])


def _columns(mask: np.ndarray) -> np.ndarray:
    """[K, B] of [B, ...]."""
    return mask.reshape(len(mask), -1).T


def _leaves(tree: Any) -> list[Any]:
    """Leaves in the order of JAX."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])]
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in _leaves(part)]
    return [] if tree is None else [tree]
