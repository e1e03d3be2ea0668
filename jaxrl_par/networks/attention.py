"""Attention to the last M steps of an episode, by their distance from the query.

With q = x W_q, k = x W_k, v = x W_v for each head of width K, and r_d = R_d W_r where
R_d = [sin(d w), cos(d w)], w_m = 10000**(-2 m / D):

    score[i, j] = ((q_i + c) k_j + (q_i + p) r_{i - j}) / sqrt(K),   0 <= i - j <= M

c and p are learned biases for content and position. Nothing else has a bias.

Axis letters: H heads, K their width, M steps of memory, S = M + T steps of memory and
segment, the oldest first.

Source: Dai et al., arXiv:1901.02860, section 3.3.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrl_par.networks.layers import linear, product

Biases = tuple[Float[Array, "H K"], Float[Array, "H K"]]
"""c and p."""


class KeysValues(NamedTuple):
    """What queries attend to, in the order of time or in that of a ring's slots."""

    keys: Float[Array, "B H S K"]
    values: Float[Array, "B H S K"]


class Attention(nn.Module):
    """Attention of normed inputs, in which queries see themselves and as many steps
    before them as `reach` says, at most M."""

    num_heads: int
    memory_length: int
    width: int
    dtype: DTypeLike = jnp.float32
    """Dtype of the products; norm and softmax are float32."""

    def setup(self):
        init, width = nn.initializers.lecun_normal(), self.width
        self.scale = self.param("scale", nn.initializers.ones, (width,), jnp.float32)
        self.shift = self.param("shift", nn.initializers.zeros, (width,), jnp.float32)
        self.qkv = self.param("query_key_value", init, (width, 3 * width), jnp.float32)
        # Transposed, [H K, D]: acting multiplies queries by it.
        self.position = self.param("position", init, (width, width), jnp.float32)
        self.output = self.param("output", init, (width, width), jnp.float32)

    def segment(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B M D"],
        reach: Int[Array, "B T"],
        biases: Biases,
    ) -> tuple[Float[Array, "N D"], KeysValues]:
        """T steps after a memory of M, whose keys and values are computed anew."""
        length = self.memory_length
        q, k, v = self._heads(x, self.qkv)
        old_k, old_v = self._heads(memory, self.qkv[:, self.width :])
        content, position = self._queries(q, biases)
        # Concatenated scores are smaller than concatenated keys and values.
        scores = [jnp.einsum("hbtk,hbsk->hbts", content, keys) for keys in (old_k, k)]
        scores = jnp.concatenate(scores, axis=3) + skewed(self._by_distance(position))
        weights = self._softmax(scores, _seen(reach, length))
        mixed = jnp.einsum("hbts,hbsk->hbtk", weights[..., :length], old_v)
        mixed += jnp.einsum("hbts,hbsk->hbtk", weights[..., length:], v)
        pairs = ((old_k, k), (old_v, v))
        rows = (jnp.concatenate(pair, axis=2).swapaxes(0, 1) for pair in pairs)
        return self._output(mixed), KeysValues(*rows)

    def step(
        self,
        x: Float[Array, "B 1 D"],
        ring: KeysValues,
        slot: Int[Array, " B"],
        reach: Int[Array, "B 1"],
        biases: Biases,
    ) -> tuple[Float[Array, "B D"], KeysValues]:
        """One step, which takes the oldest's `slot` in a ring of M + 1."""
        num_slots = self.memory_length + 1
        q, k, v = self._heads(x, self.qkv)
        # Written before it is read: the other order makes XLA copy the ring.
        ring = written(ring, KeysValues(k.swapaxes(0, 1), v.swapaxes(0, 1)), slot)
        content, position = self._queries(q, biases)
        # Products in the ring's order of axes leave it where it is.
        content = content.swapaxes(0, 1)
        scores = jnp.einsum("bhtk,bhsk->bhts", content, ring.keys)
        position = self._by_distance(position).swapaxes(0, 1)
        scores += rolled(position, slot + 1, axis=-1)
        age = (slot[:, None] - jnp.arange(num_slots)[None]) % num_slots
        weights = self._softmax(scores, (age <= reach)[:, None, None])
        mixed = jnp.einsum("bhts,bhsk->bhtk", weights, ring.values)
        return self._output(mixed.swapaxes(0, 1)), ring

    def _heads(self, x: Float[Array, "B S D"], kernel: Float[Array, "D F"]):
        """norm(x) @ kernel: an array [H, B, S, K] for each D columns of the kernel."""
        num_envs, num_steps, width = x.shape
        x = normalised(x).reshape(-1, width)
        if x.shape[0] < width:
            y = product(x * self.scale[None] + self.shift[None], kernel, self.dtype)
        else:
            # The kernel has fewer rows to scale, and gradients end at it for memory.
            kernel, bias = self.scale[:, None] * kernel, self.shift @ kernel
            y = linear(*(leaf.astype(self.dtype) for leaf in (x, kernel, bias)))
        y = y.reshape(num_envs, num_steps, -1, self.num_heads, width // self.num_heads)
        return tuple(jnp.transpose(y.astype(self.dtype), (2, 3, 0, 1, 4)))

    def _queries(self, q: Float[Array, "H B T K"], biases: Biases):
        """Queries of content and of position, scaled."""
        scale = q.shape[-1] ** -0.5
        return tuple(
            ((q + bias[:, None, None]) * scale).astype(self.dtype) for bias in biases
        )

    def _by_distance(self, q: Float[Array, "H B T K"]) -> Float[Array, "H B T E"]:
        """q r_d for the distances d = M .. 0."""
        num_heads, num_envs, num_steps, _ = q.shape
        distances, width = self.memory_length + 1, self.width
        table = jnp.asarray(sinusoids(distances, width)[::-1], self.dtype)
        kernel, rows = self.position.astype(self.dtype), num_envs * num_steps
        if rows * (width + (num_heads - 1) * distances) < distances * width:
            q = jnp.einsum("hbtk,hkd->hbtd", q, kernel.reshape(num_heads, -1, width))
            return jnp.einsum("hbtd,ed->hbte", q, table)
        r = (kernel @ table.T).reshape(num_heads, -1, distances)
        return jnp.einsum("hbtk,hke->hbte", q, r)

    def _softmax(self, scores: Float[Array, "*N T S"], seen: Bool[Array, "..."]):
        scores = jnp.where(seen, scores.astype(jnp.float32), -jnp.inf)
        return jax.nn.softmax(scores).astype(self.dtype)

    def _output(self, mixed: Float[Array, "H B T K"]) -> Float[Array, "N D"]:
        rows = jnp.transpose(mixed, (1, 2, 0, 3)).reshape(-1, self.width)
        return product(rows, self.output, self.dtype)


def normalised(x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
    """Rows of mean 0 and variance 1."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + 1e-5)


def sinusoids(num_distances: int, width: int) -> Float[np.ndarray, "E D"]:
    """R_d for d = 0 .. num_distances - 1."""
    frequencies = 10000.0 ** (-2 * np.arange((width + 1) // 2) / width)
    angles = np.arange(num_distances)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width]


def skewed(scores: Float[Array, "H B T E"]) -> Float[Array, "H B T S"]:
    """Moves row t, scores by distance M .. 0, to the columns t .. t + M of M + T.

    Other columns are 0. Rows that are longer by one than the result's make the shift.
    """
    *batch, num_steps, distances = scores.shape
    num_keys = distances - 1 + num_steps
    padded = jnp.pad(scores, [(0, 0)] * 3 + [(0, num_steps)])
    flat = padded.reshape(*batch, -1)[..., : num_steps * num_keys]
    return flat.reshape(*batch, num_steps, num_keys)


def written(ring: PyTree, new: PyTree, slot: Int[Array, " B"]) -> PyTree:
    """Rings [B, ..., S, K] with the new rows [B, ..., 1, K] at each `slot`."""
    write = partial(jax.lax.dynamic_update_slice_in_dim, axis=-2)
    return jax.tree.map(lambda x, y: jax.vmap(write)(x, y, slot), ring, new)


def rolled(x: Array, shift: Int[Array, " B"], axis: int) -> Array:
    """`jnp.roll` of each environment's array by its own shift."""
    return jax.vmap(lambda x, shift: jnp.roll(x, shift, axis))(x, shift)


def _seen(reach: Int[Array, "B T"], memory_length: int) -> Bool[Array, "B T S"]:
    """Which steps of memory and segment a query of the segment attends to."""
    num_steps = reach.shape[1]
    own = memory_length + jnp.arange(num_steps)[:, None]
    distance = (own - jnp.arange(memory_length + num_steps)[None])[None]
    return (distance >= 0) & (distance <= reach[:, :, None])
