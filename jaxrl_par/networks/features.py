"""From observations to features, with or without memory: what networks share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxrl_par.errors import (
    ReadIf,
    RefusedError,
    at_least,
    at_most,
    not_chosen,
    refuse,
    told,
)
from jaxrl_par.masks import unmasked
from jaxrl_par.networks import gtrxl
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.gtrxl import LARGEST_WIDTH, GTrXL, TransformerConfig
from jaxrl_par.networks.heads import refuse_masks
from jaxrl_par.networks.images import Deep, Shallow
from jaxrl_par.networks.layers import MLP, PatchConv, swish
from jaxrl_par.networks.memory import Memory, initial_carry
from jaxrl_par.networks.observations import (
    channels_last,
    image_shape,
    is_image,
    one_hots,
    scaled,
)
from jaxrl_par.networks.reference import normalized
from jaxrl_par.types import (
    Carry,
    Discrete,
    MultiDiscrete,
    Obs,
    Spec,
    Specs,
    TimeStep,
)

_ACTIVATIONS = {"tanh": jnp.tanh, "relu": nn.relu, "swish": swish}
_IMAGE_NETWORKS = {"shallow": Shallow, "deep": Deep}
# Pixels of the smaller side below which what is left of an image says too little.
_SMALLEST = {"conv": 3, "shallow": 36, "deep": 8}
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
_MEMORY = "_memory"
# Names that `read` is called with, for a policy or values of actions; the last one
# that there is comes first.
_FEATURES = (f"torso{_MEMORY}", f"actor{_MEMORY}", "torso", "actor")
_SEEN = "intermediates"  # flax's word


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a network."""

    read_if: ClassVar[ReadIf] = {
        "channels": ("torso", ("auto", "conv")),
        "memory_width": ("memory", ("lstm", "gru", "gtrxl")),
        "transformer": ("memory", ("gtrxl",)),
    }
    """What each of these fields is for: another one, and its values."""

    torso: Literal["auto", "mlp", "conv", "shallow", "deep"] = "auto"
    """What reads observations: dense layers, after a 3x3 convolution, or after IMPALA's
    image networks. auto: shallow if images have at least 36 x 36 pixels, conv if they
    have fewer, mlp if there are none."""
    channels: int = 16
    """Filters of the 3x3 convolution. Those of shallow and deep are the paper's."""
    widths: tuple[int, ...] = (64, 64)
    """Units of the dense layers, after convolutions if there are any. IMPALA: 256."""
    activation: Literal["tanh", "relu", "swish"] = "tanh"
    """Between layers of mlp and conv; shallow and deep take relu throughout."""
    memory: Literal["none", "lstm", "gru", "gtrxl"] = "none"
    """What follows the dense layers."""
    memory_width: int = 128
    transformer: TransformerConfig = TransformerConfig()
    """Shape of gtrxl, but for its width."""
    shared: bool = True
    """Policy and value read the same torso and memory, or each has its own."""
    policy: Literal["gaussian", "squashed"] = "gaussian"
    """For continuous actions: unbounded, which the environment clips, or tanh."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the torso and memory's products; parameters and outputs are float32."""

    @property
    def function(self) -> Callable[[Array], Array]:
        """The activation."""
        return _ACTIVATIONS[self.activation]

    def problems(self) -> list[str]:
        """What is out of range."""
        problems = not_chosen(self)
        problems += at_least(self, channels=1, memory_width=1, widths=1)
        highest = dict.fromkeys(("channels", "memory_width", "widths"), LARGEST_WIDTH)
        problems += at_most(self, **highest)
        num_heads = self.transformer.num_heads
        if self.memory == "gtrxl" and num_heads > 0 and self.memory_width % num_heads:
            problems.append(
                f"memory_width must be a multiple of the {num_heads} heads of gtrxl,"
                f" got {self.memory_width}"
            )
        return problems


@dataclass(frozen=True, eq=False)
class Static:
    """Specs in a box, which flax neither hashes nor turns into its own containers."""

    observation: Specs
    action: Specs


def check(
    observation_spec: Specs, config: NetworkConfig, *, masked: bool = False
) -> None:
    """Refuses a config that is out of range or does not fit what is observed.

    Args:
      masked: whether the network can do without the actions that a mask excludes.

    Raises:
      ValueError: it is, and why.
    """
    refuse(config)
    refuse_masks(observation_spec, masked)
    observation_spec = unmasked(observation_spec)
    for leaf in _leaves(observation_spec):
        if not isinstance(leaf, Spec):
            raise RefusedError(
                "observation_spec must be a Box, a Discrete or a tree of them, as"
                f" env.observation_spec is, got {told(leaf)}"
            )
        if not prod(leaf.shape):
            raise RefusedError(
                f"a network has nothing to read in {leaf}: leave such arrays out, or"
                " show a constant in place of nothing"
            )
        if len(leaf.shape) > 3 and config.torso != "mlp":
            raise RefusedError(
                f"images are [height, width, channels], and not {leaf}: put a stack of"
                " them into the channels (gymnasium.wrappers.TransformObservation does"
                " it), or say torso = mlp, which reads numbers in any order"
            )
    _check_images(observation_spec, config.torso)


def as_network(
    module: nn.Module, start: Callable[[int], Carry], specs: Static
) -> Network:
    """A module that is called with (carry, steps [T, B], acting) as a `Network`.

    Args:
      start: empty memory for so many environments.
      specs: those that it was made for.
    """

    def apply(params, carry, step):
        steps = jax.tree.map(lambda x: x[None], step)
        outputs, carry = module.apply(params, carry, steps, acting=True)
        return jax.tree.map(lambda x: x[0], outputs), carry

    def with_features(params, carry, steps):
        (outputs, carry), seen = module.apply(
            params, carry, steps, capture_intermediates=_makes_features, mutable=[_SEEN]
        )
        return (outputs, over_time(_last_features(seen[_SEEN]), steps)), carry

    remembers = jax.tree.leaves(jax.eval_shape(lambda: start(1)))
    return Network(
        init=lambda key, step: module.init(
            key, start(step.first.shape[0]), jax.tree.map(lambda x: x[None], step)
        ),
        initial_carry=start,
        apply=apply,
        unroll=module.apply,
        specs=(specs.observation, specs.action),
        with_features=with_features,
        normalized=None if remembers else partial(normalized, module),
    )


def _makes_features(module: nn.Module, method: str) -> bool:
    return module.name in _FEATURES and method == "__call__"


def _last_features(seen: Any) -> Float[Array, "N D"]:
    """Those that the policy reads, or the values of actions."""
    name = next(name for name in _FEATURES if name in seen)
    (made,) = seen[name]["__call__"]
    return made[0] if name.endswith(_MEMORY) else made


def empty(config: NetworkConfig, num_envs: int) -> Carry:
    """The memory of `read` before anything was seen; () without memory."""
    if config.memory == "none":
        return ()
    if config.memory == "gtrxl":
        dtype = _DTYPES[config.compute_dtype]
        width = config.memory_width
        return gtrxl.initial_carry(config.transformer, width, num_envs, dtype)
    return initial_carry(config.memory, config.memory_width, num_envs)


def read(
    name: str,
    specs: Static,
    config: NetworkConfig,
    carry: Carry,
    steps: TimeStep,
    acting: bool,
) -> tuple[Float[Array, "N D"], Carry]:
    """Features of steps [T, B], in N = T B rows, and the memory after them.

    For use in a compact module, of which torso and memory become parts: `name` and
    `name`_memory.
    """
    dtype = _DTYPES[config.compute_dtype]
    x = Torso(specs, config, name=name)(rows_of(unmasked(steps.obs)))
    if config.memory == "none":
        return x, carry
    name, width = f"{name}{_MEMORY}", config.memory_width
    if config.memory == "gtrxl":
        transformer = GTrXL(config.transformer, width, dtype, name=name)
        return transformer(carry, x, steps.first, acting)
    return Memory(config.memory, width, dtype, name=name)(carry, x, steps.first)


def rows_of(tree: PyTree) -> PyTree:
    """Leaves [T, B, ...] in N = T B rows."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def over_time(outputs: PyTree, steps: TimeStep) -> PyTree:
    """Outputs of N = T B rows, with the axes [T, B] of the steps again."""
    shape = steps.first.shape
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), outputs)


class Torso(nn.Module):
    """Observations [N, ...] to features [N, D].

    Dense layers read everything, behind a 3x3 convolution of the images. With shallow
    and deep they read the images alone, and what else was observed, such as the last
    action and reward, joins their features: whoever wants rewards within [-1, 1], as in
    the paper, clips them before. Integers, such as pixels, are scaled from their bounds
    to [0, 1]; real numbers are read as they are.
    """

    specs: Static
    config: NetworkConfig

    @nn.compact
    def __call__(self, obs: Obs) -> Float[Array, "N D"]:
        config, spec = self.config, unmasked(self.specs.observation)
        dtype, activation = (
            _DTYPES[config.compute_dtype],
            _ACTIVATIONS[config.activation],
        )
        torso = chosen_torso(spec, config.torso)
        if torso in _IMAGE_NETWORKS:
            activation = nn.relu
        before, after = [], []
        for leaf_spec, leaf in zip(_leaves(spec), jax.tree.leaves(obs), strict=True):
            image = is_image(leaf_spec)
            if isinstance(leaf_spec, Discrete):
                leaf = leaf[:, None] == jnp.arange(leaf_spec.num_values)[None]
            elif isinstance(leaf_spec, MultiDiscrete):
                leaf = one_hots(leaf_spec, leaf)
            else:
                leaf = scaled(leaf_spec, leaf).astype(dtype)
            if image and torso != "mlp":
                leaf = self._read_image(torso, channels_last(leaf_spec, leaf))
            vector = leaf.reshape(leaf.shape[0], -1).astype(dtype)
            late = torso in _IMAGE_NETWORKS and not image
            (after if late else before).append(vector)
        x = MLP(config.widths, activation, dtype)(_joined(before))
        return _joined([x, *after])

    def _read_image(self, torso: str, x: Float[Array, "N H W C"]) -> Array:
        dtype = _DTYPES[self.config.compute_dtype]
        if torso in _IMAGE_NETWORKS:
            return _IMAGE_NETWORKS[torso](dtype)(x)
        activation = _ACTIVATIONS[self.config.activation]
        return activation(PatchConv(self.config.channels, dtype=dtype)(x))


def _joined(vectors: list[Array]) -> Float[Array, "N D"]:
    return vectors[0] if len(vectors) == 1 else jnp.concatenate(vectors, axis=1)


def _leaves(specs: Specs) -> list[Any]:
    return jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, Spec))


def _fit(specs: Specs, torso: str) -> bool:
    """There are images, and all are large enough."""
    images = [spec for spec in _leaves(specs) if is_image(spec)]
    return bool(images) and all(
        min(image_shape(image)[:2]) >= _SMALLEST[torso] for image in images
    )


def chosen_torso(specs: Specs, torso: str) -> str:
    """What `auto` stands for."""
    if torso != "auto":
        return torso
    seen = unmasked(specs)
    return next((name for name in ("shallow", "conv") if _fit(seen, name)), "mlp")


def _check_images(specs: Specs, torso: str) -> None:
    if torso in _SMALLEST and not _fit(specs, torso):
        side = _SMALLEST[torso]
        raise ValueError(
            f"torso = {torso} needs images [height, width, channels] of at least"
            f" {side} x {side}; observations are {specs}"
        )
