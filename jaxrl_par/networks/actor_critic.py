"""Policy and value networks for any observation and action, from one config."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrl_par.distributions import (
    Categorical,
    DiagNormal,
    Distribution,
    SquashedNormal,
)
from jaxrl_par.errors import not_chosen
from jaxrl_par.networks import gtrxl
from jaxrl_par.networks.base import Network
from jaxrl_par.networks.gtrxl import GTrXL, TransformerConfig
from jaxrl_par.networks.images import Deep, Shallow
from jaxrl_par.networks.layers import MLP, PatchConv, linear, orthogonal
from jaxrl_par.networks.memory import Memory, initial_carry
from jaxrl_par.types import Box, Discrete, Obs, Spec, Specs

_ACTIVATIONS = {"tanh": jnp.tanh, "relu": nn.relu}
_IMAGE_NETWORKS = {"shallow": Shallow, "deep": Deep}
# Pixels of the smaller side below which what is left of an image says too little.
_SMALLEST = {"conv": 3, "shallow": 36, "deep": 8}
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of an actor-critic network."""

    torso: Literal["auto", "mlp", "conv", "shallow", "deep"] = "auto"
    """What reads observations: dense layers, after a 3x3 convolution, or after IMPALA's
    image networks. auto: shallow if images have at least 36 x 36 pixels, conv if they
    have fewer, mlp if there are none."""
    channels: int = 16
    """Filters of the 3x3 convolution. Those of shallow and deep are the paper's."""
    widths: tuple[int, ...] = (64, 64)
    """Units of the dense layers, after convolutions if there are any. IMPALA: 256."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Of mlp and conv; shallow and deep take relu throughout."""
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
    """Of the torso and memory's matmuls; parameters and outputs are float32."""

    def problems(self) -> list[str]:
        """What is out of range."""
        sizes = {"channels": self.channels, "memory_width": self.memory_width}
        sizes |= {f"widths[{i}]": width for i, width in enumerate(self.widths)}
        problems = not_chosen(self) + [
            f"{name} must be at least 1, got {size}"
            for name, size in sizes.items()
            if size < 1
        ]
        num_heads = self.transformer.num_heads
        if self.memory == "gtrxl" and num_heads > 0 and self.memory_width % num_heads:
            problems.append(
                f"memory_width must be a multiple of the {num_heads} heads of gtrxl,"
                f" got {self.memory_width}"
            )
        return problems


def actor_critic(
    observation_spec: Specs, action_spec: Spec, config: NetworkConfig = NetworkConfig()
) -> Network:
    """A network whose outputs are (distribution of the action, value).

    Distribution leaves are [..., A], values [...]. The policy starts near uniform, or
    near mean 0 with standard deviation 1.

    Raises:
      ValueError: the config does not fit the specs.

    Sources: Andrychowicz et al., arXiv:2006.05990, section 3.2, for the initial scales;
    Espeholt et al., arXiv:1802.01561, figure 3, for shallow and deep.
    """
    parts = config.transformer.problems() if config.memory == "gtrxl" else []
    if problems := config.problems() + [f"transformer.{part}" for part in parts]:
        raise ValueError("; ".join(problems))
    if config.policy == "squashed" and isinstance(action_spec, Box):
        if not action_spec.bounded:
            raise ValueError("a squashed policy needs bounds for every action")
    elif not isinstance(action_spec, Box | Discrete):
        raise ValueError(f"actions must be Box or Discrete, not {action_spec!r}")
    if len(action_spec.shape) != isinstance(action_spec, Box):
        raise ValueError(
            "an action is one integer or a vector of numbers, not an array of shape"
            f" {action_spec.shape}"
        )
    _check_images(observation_spec, config.torso)
    module = _ActorCritic(_Static(observation_spec, action_spec), config)
    memory, width = config.memory, config.memory_width

    def start(num_envs: int):
        if memory == "none":
            return ()
        if memory == "gtrxl":
            dtype = _DTYPES[config.compute_dtype]
            one = gtrxl.initial_carry(config.transformer, width, num_envs, dtype)
        else:
            one = initial_carry(memory, width, num_envs)
        return one if config.shared else (one, one)

    def apply(params, carry, step):
        steps = jax.tree.map(lambda x: x[None], step)
        outputs, carry = module.apply(params, carry, steps, acting=True)
        return jax.tree.map(lambda x: x[0], outputs), carry

    return Network(
        init=lambda key, step: module.init(
            key, start(step.first.shape[0]), jax.tree.map(lambda x: x[None], step)
        ),
        initial_carry=start,
        apply=apply,
        unroll=module.apply,
    )


@dataclass(frozen=True, eq=False)
class _Static:
    """Specs in a box, which flax neither hashes nor turns into its own containers."""

    observation: Specs
    action: Spec


class _ActorCritic(nn.Module):
    specs: _Static
    config: NetworkConfig

    @nn.compact
    def __call__(self, carry, steps, acting=False):
        read = partial(self._read, first=steps.first, acting=acting)
        shape = steps.first.shape
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), steps.obs)
        if self.config.shared:
            features, carry = read("torso", carry, rows)
            outputs = _Heads(self.specs.action, self.config.policy)(features, features)
        else:
            old = carry if carry else ((), ())
            actor, actor_carry = read("actor", old[0], rows)
            critic, critic_carry = read("critic", old[1], rows)
            carry = (actor_carry, critic_carry) if carry else ()
            outputs = _Heads(self.specs.action, self.config.policy)(actor, critic)
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), outputs), carry

    def _read(self, name, carry, rows, *, first, acting):
        config, dtype = self.config, _DTYPES[self.config.compute_dtype]
        x = _Torso(self.specs, config, name=name)(rows)
        if config.memory == "none":
            return x, carry
        name, width = f"{name}_memory", config.memory_width
        if config.memory == "gtrxl":
            transformer = GTrXL(config.transformer, width, dtype, name=name)
            return transformer(carry, x, first, acting)
        return Memory(config.memory, width, dtype, name=name)(carry, x, first)


class _Torso(nn.Module):
    """Observations [N, ...] to features [N, D].

    Dense layers read everything, behind a 3x3 convolution of the images. With shallow
    and deep they read the images alone, and what else was observed, such as the last
    action and reward, joins their features: whoever wants rewards within [-1, 1], as in
    the paper, clips them before. Pixels of type uint8 are divided by 255.
    """

    specs: _Static
    config: NetworkConfig

    @nn.compact
    def __call__(self, obs: Obs) -> Float[Array, "N D"]:
        config, spec = self.config, self.specs.observation
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
            if image:
                leaf = self._read_image(torso, leaf_spec, leaf)
            elif isinstance(leaf_spec, Discrete):
                leaf = leaf[:, None] == jnp.arange(leaf_spec.num_values)
            vector = leaf.reshape(leaf.shape[0], -1).astype(dtype)
            late = torso in _IMAGE_NETWORKS and not image
            (after if late else before).append(vector)
        x = MLP(config.widths, activation, dtype)(_joined(before))
        return _joined([x, *after])

    def _read_image(self, torso: str, spec: Spec, x: Array) -> Array:
        dtype = _DTYPES[self.config.compute_dtype]
        x = x.astype(dtype) / 255 if spec.dtype == np.uint8 else x.astype(dtype)
        if torso in _IMAGE_NETWORKS:
            return _IMAGE_NETWORKS[torso](dtype)(x)
        if torso == "conv":
            activation = _ACTIVATIONS[self.config.activation]
            return activation(PatchConv(self.config.channels, dtype=dtype)(x))
        return x


def _joined(vectors: list[Array]) -> Float[Array, "N D"]:
    return vectors[0] if len(vectors) == 1 else jnp.concatenate(vectors, axis=1)


class _Heads(nn.Module):
    """Features [N, D] to a distribution [N, A] and values [N]."""

    action: Spec
    policy: str

    @nn.compact
    def __call__(self, actor, critic) -> tuple[Distribution, Float[Array, " N"]]:
        if isinstance(self.action, Discrete):
            num_outputs = self.action.num_values
        else:
            (num_outputs,) = self.action.shape
        zeros = nn.initializers.zeros
        shape = (actor.shape[1], num_outputs)
        policy = self.param("policy", orthogonal(0.01), shape)
        policy_bias = self.param("policy_bias", zeros, (num_outputs,))
        value = self.param("value", orthogonal(1.0), (critic.shape[1], 1))
        value_bias = self.param("value_bias", zeros, (1,))
        shared = actor is critic
        actor, critic = actor.astype(jnp.float32), critic.astype(jnp.float32)
        if shared:
            # One product with all outputs: with few of them, each reads all features.
            kernel = jnp.concatenate([policy, value], axis=1)
            outputs = linear(actor, kernel, jnp.concatenate([policy_bias, value_bias]))
            return self._distribution(outputs[:, :-1]), outputs[:, -1]
        values = linear(critic, value, value_bias)[:, 0]
        return self._distribution(linear(actor, policy, policy_bias)), values

    def _distribution(self, outputs: Float[Array, "N A"]) -> Distribution:
        if isinstance(self.action, Discrete):
            return Categorical(outputs)
        zeros = nn.initializers.zeros
        mean = outputs
        log_std = self.param("log_std", zeros, (outputs.shape[1],))
        log_std = jnp.broadcast_to(log_std, mean.shape)
        if self.policy == "gaussian":
            return DiagNormal(mean, log_std)
        low = jnp.broadcast_to(jnp.asarray(self.action.low, jnp.float32), mean.shape)
        high = jnp.broadcast_to(jnp.asarray(self.action.high, jnp.float32), mean.shape)
        return SquashedNormal(mean, log_std, (low + high) / 2, (high - low) / 2)


def _leaves(specs: Specs) -> list[Spec]:
    return jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, Spec))


def is_image(spec: Spec) -> bool:
    """Whether a torso for images reads it: [height, width, channels]."""
    return isinstance(spec, Box) and len(spec.shape) == 3 and min(spec.shape[:2]) >= 3


def _fit(specs: Specs, torso: str) -> bool:
    """There are images, and all are large enough."""
    images = [spec for spec in _leaves(specs) if is_image(spec)]
    return bool(images) and all(
        min(image.shape[:2]) >= _SMALLEST[torso] for image in images
    )


def chosen_torso(specs: Specs, torso: str) -> str:
    """What `auto` stands for."""
    if torso != "auto":
        return torso
    return next((name for name in ("shallow", "conv") if _fit(specs, name)), "mlp")


def _check_images(specs: Specs, torso: str) -> None:
    if torso in _SMALLEST and not _fit(specs, torso):
        side = _SMALLEST[torso]
        raise ValueError(
            f"torso = {torso} needs images [height, width, channels] of at least"
            f" {side} x {side}; observations are {specs}"
        )
