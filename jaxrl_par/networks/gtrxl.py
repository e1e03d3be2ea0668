"""GTrXL: a transformer with gates, as memory of an agent.

Layer l reads E, the output of the layer below, and M, what it read in up to M steps
before, through which no gradient flows:

    X = [sg(M), E];   E' = gate(E, relu(attention(norm(E), norm(X))))
    E'' = gate(E', relu(mlp(norm(E'))));   mlp(x) = W_2 relu(W_1 x + b_1) + b_2

Source: Parisotto et al., arXiv:1910.06764, section 3.
"""

from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.errors import at_least, at_most, not_chosen
from jaxrl_par.networks import gates
from jaxrl_par.networks.attention import Attention, Biases, KeysValues, rolled, written
from jaxrl_par.networks.layers import Linear

LARGEST_WIDTH = 2**16
"""Units of a layer: a matrix between two such layers has 16 GiB."""


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a GTrXL, but for its width, which is `memory_width`."""

    num_layers: int = 2
    num_heads: int = 4
    """They share the width evenly."""
    memory_length: int = 64
    """Steps before its own that a layer sees: num_layers times as many reach an output.
    """
    mlp_width: int = 256
    gate: gates.Kind = "gru"
    """What joins a layer's parts to the stream; residual adds."""
    gate_bias: float | None = None
    """Where the gate's bias starts: the larger, the nearer to a network without memory.
    None: as in the paper, 2 for gru, 1 for output, highway and sigmoid_tanh."""

    def problems(self) -> list[str]:
        """What is out of range."""
        sizes = ("num_layers", "num_heads", "memory_length", "mlp_width")
        problems = not_chosen(self) + at_least(self, **dict.fromkeys(sizes, 1))
        highest = {"num_layers": 1000, "num_heads": 1000, "memory_length": 2**20}
        problems += at_most(self, mlp_width=LARGEST_WIDTH, **highest)
        if self.gate in ("residual", "input") and self.gate_bias is not None:
            problems.append(
                f"gate_bias must be None with gate = {self.gate}, which has no bias,"
                f" got {self.gate_bias}"
            )
        return problems


class LayerMemory(NamedTuple):
    """What a layer read, and keys and values of it, in rings of S = M + 1 steps."""

    inputs: Float[Array, "B S D"]
    keys: Float[Array, "B H S K"]
    values: Float[Array, "B H S K"]


class TransformerCarry(NamedTuple):
    """The memory of all layers: a step is written where the oldest was.

    An episode's start sets `length` to 0 and clears nothing. Nothing can overflow.
    """

    layers: tuple[LayerMemory, ...]
    cursor: Int[Array, " B"]
    """The slot of the oldest step, which the next one takes."""
    length: Int[Array, " B"]
    """How many of the newest steps are of this episode, at most M + 1."""


def initial_carry(
    config: TransformerConfig, width: int, num_envs: int, dtype: DTypeLike = jnp.float32
) -> TransformerCarry:
    """An empty memory. Keys and values are of the dtype in which products are taken."""
    num_slots, num_heads = config.memory_length + 1, config.num_heads
    heads = jnp.zeros((num_envs, num_heads, num_slots, width // num_heads), dtype)
    inputs = jnp.zeros((num_envs, num_slots, width), jnp.float32)
    layer = LayerMemory(inputs, heads, heads)
    zero = jnp.zeros(num_envs, jnp.int32)
    return TransformerCarry((layer,) * config.num_layers, zero, zero)


class GTrXL(nn.Module):
    """Reads T steps of features in order, in N = T B rows.

    A dense layer brings features to the width of the stream.
    """

    config: TransformerConfig
    width: int
    dtype: DTypeLike = jnp.float32
    """Dtype of the products; parameters, stream, norms and gates are float32."""

    @nn.compact
    def __call__(
        self,
        carry: TransformerCarry,
        x: Float[Array, "N F"],
        first: Bool[Array, "T B"],
        acting: bool = False,
    ) -> tuple[Float[Array, "N D"], TransformerCarry]:
        """
        Args:
          acting: with T = 1, reads keys and values from the memory. Otherwise they are
            computed anew from its inputs, so that their weights learn from it.
        """
        num_steps, num_envs = first.shape
        carry = jax.lax.stop_gradient(carry)
        x = Linear(self.width, 1.0, self.dtype)(x).astype(jnp.float32)
        # Environments first: attention is a product for each.
        x = x.reshape(num_steps, num_envs, -1).swapaxes(0, 1)
        zeros, heads = nn.initializers.zeros, self.config.num_heads
        shape = (heads, self.width // heads)
        biases = (
            self.param("content_bias", zeros, shape, jnp.float32),
            self.param("position_bias", zeros, shape, jnp.float32),
        )
        most = self.config.memory_length
        reach = jnp.minimum(_reach(carry.length, first), most)
        layers = []
        for i, memory in enumerate(carry.layers):
            layer = _Layer(self.config, self.width, self.dtype, name=f"layer_{i}")
            x, memory = layer(x, memory, carry.cursor, reach, biases, acting)
            layers.append(memory)
        carry = TransformerCarry(
            tuple(layers), (carry.cursor + num_steps) % (most + 1), reach[:, -1] + 1
        )
        return x.swapaxes(0, 1).reshape(-1, self.width), carry


class _Layer(nn.Module):
    config: TransformerConfig
    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: LayerMemory,
        cursor: Int[Array, " B"],
        reach: Int[Array, "B T"],
        biases: Biases,
        acting: bool,
    ) -> tuple[Float[Array, "B T D"], LayerMemory]:
        config, shape = self.config, x.shape
        attention = Attention(
            config.num_heads,
            config.memory_length,
            self.width,
            self.dtype,
            name="attention",
        )
        if acting:
            ring = KeysValues(memory.keys, memory.values)
            y, ring = attention.step(x, ring, cursor, reach, biases)
            memory = LayerMemory(written(memory.inputs, x, cursor), *ring)
        else:
            inputs = rolled(memory.inputs, -cursor, axis=0)[:, 1:]
            y, rows = attention.segment(x, inputs, reach, biases)
            memory = _newest(
                LayerMemory(jnp.concatenate([inputs, x], axis=1), *rows),
                config.memory_length + 1,
                cursor + x.shape[1],
            )
        x = x.reshape(-1, self.width)
        x = self._gate("attention_gate")(x, nn.relu(y))
        y = nn.LayerNorm(epsilon=1e-5, name="mlp_norm")(x)
        y = nn.relu(Linear(config.mlp_width, dtype=self.dtype)(y))
        y = Linear(self.width, dtype=self.dtype)(y).astype(jnp.float32)
        x = self._gate("mlp_gate")(x, nn.relu(y))
        return x.reshape(shape), memory

    def _gate(self, name: str) -> gates.Gate:
        config = self.config
        return gates.Gate(config.gate, config.gate_bias, self.dtype, name=name)


def _reach(length: Int[Array, " B"], first: Bool[Array, "T B"]) -> Int[Array, "B T"]:
    """Steps of the same episode before each, `length` of them before the segment."""
    time = jnp.arange(len(first), dtype=jnp.int32)[:, None]
    start = jax.lax.cummax(jnp.where(first, time, -length[None]))
    return (time - start).T


def _newest(rows: LayerMemory, count: int, slot: Int[Array, " B"]) -> LayerMemory:
    """The last `count` rows as rings whose oldest is at `slot`."""
    return jax.tree.map(lambda rows: rolled(rows[..., -count:, :], slot, axis=-2), rows)
