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

from jaxrl_par.networks.layers import product

Biases = tuple[Float[Array, "H K"], Float[Array, "H K"]]
"""c and p."""


class KeysValues(NamedTuple):
    """What queries attend to, in the order of time or in that of a ring's slots."""

    keys: Float[Array, "B H S K"]
    values: Float[Array, "B H S K"]


class Attention(nn.Module):
    """Queries attend to themselves and to up to M steps before them, as `reach` says:
    how many steps before it a query may see."""

    num_heads: int
    memory_length: int
    width: int
    dtype: DTypeLike = jnp.float32
    """Of the products; the softmax is float32."""

    def setup(self):
        init, width = nn.initializers.lecun_normal(), self.width
        self.qkv = self.param("query_key_value", init, (width, 3 * width))
        # Transposed, [H K, D]: acting multiplies queries by it.
        self.position = self.param("position", init, (width, width))
        self.output = self.param("output", init, (width, width))

    def segment(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B M D"],
        reach: Int[Array, "B T"],
        biases: Biases,
    ) -> tuple[Float[Array, "N D"], KeysValues]:
        """T steps after a memory of M, whose keys and values are computed anew."""
        num_steps, width = x.shape[1:]
        q, k, v = self._heads(x, self.qkv)
        old_k, old_v = self._heads(memory, self.qkv[:, width:])
        k, v = (
            jnp.concatenate(pair, axis=2).astype(self.dtype)
            for pair in ((old_k, k), (old_v, v))
        )
        content, position = self._queries(q, biases)
        content = jnp.einsum("bhtk,bhsk->bhts", content, k)
        scores = content + skewed(self._by_distance(position))
        seen = _seen(reach, self.memory_length)[:, None]
        weights = self._softmax(scores, seen)
        mixed = jnp.einsum("bhts,bhsk->bthk", weights, v)
        return self._output(mixed), KeysValues(k, v)

    def step(
        self,
        x: Float[Array, "B D"],
        ring: KeysValues,
        slot: Int[Array, " B"],
        reach: Int[Array, " B"],
        biases: Biases,
    ) -> tuple[Float[Array, "B D"], KeysValues]:
        """One step, which takes the oldest's `slot` in a ring of M + 1."""
        num_slots = self.memory_length + 1
        q, k, v = self._heads(x[:, None], self.qkv)
        # Written before it is read: the other order makes XLA copy the ring.
        new = KeysValues(k.astype(self.dtype), v.astype(self.dtype))
        ring = written(ring, new, slot)
        content, position = self._queries(q, biases)
        content = jnp.einsum("bhtk,bhsk->bhts", content, ring.keys)
        position = rolled(self._by_distance(position), slot + 1, axis=-1)
        age = (slot[:, None] - jnp.arange(num_slots)) % num_slots
        seen = (age <= reach[:, None])[:, None, None]
        weights = self._softmax(content + position, seen)
        mixed = jnp.einsum("bhts,bhsk->bthk", weights, ring.values)
        return self._output(mixed), ring

    def _heads(self, x: Float[Array, "B S D"], kernel: Float[Array, "D F"]):
        """x @ kernel as arrays [B, H, S, K], one for each D columns of the kernel."""
        num_envs, num_steps, width = x.shape
        y = product(x.reshape(-1, width), kernel, self.dtype)
        y = y.reshape(num_envs, num_steps, -1, self.num_heads, width // self.num_heads)
        return tuple(jnp.transpose(y, (2, 0, 3, 1, 4)))

    def _queries(self, q: Float[Array, "B H T K"], biases: Biases):
        """Queries of content and of position, scaled."""
        return tuple(
            ((q + bias[:, None]) * q.shape[-1] ** -0.5).astype(self.dtype)
            for bias in biases
        )

    def _by_distance(self, q: Float[Array, "B H T K"]) -> Float[Array, "B H T E"]:
        """q r_d for the distances d = M .. 0."""
        num_envs, num_heads, num_steps, _ = q.shape
        distances, width = self.memory_length + 1, self.width
        table = jnp.asarray(sinusoids(distances, width)[::-1], self.dtype)
        rows = num_envs * num_steps
        kernel = self.position.astype(self.dtype)
        if rows * (width + (num_heads - 1) * distances) < distances * width:
            q = jnp.einsum("bhtk,hkd->bhtd", q, kernel.reshape(num_heads, -1, width))
            return jnp.einsum("bhtd,ed->bhte", q, table)
        r = (table @ kernel.T).reshape(distances, num_heads, -1)
        return jnp.einsum("bhtk,ehk->bhte", q, r)

    def _softmax(self, scores, seen: Bool[Array, "B 1 T S"]):
        scores = jnp.where(seen, scores.astype(jnp.float32), -jnp.inf)
        return jax.nn.softmax(scores).astype(self.dtype)

    def _output(self, mixed: Float[Array, "B T H K"]) -> Float[Array, "N D"]:
        return product(mixed.reshape(-1, self.width), self.output, self.dtype)


def sinusoids(num_distances: int, width: int) -> Float[np.ndarray, "E D"]:
    """R_d for d = 0 .. num_distances - 1."""
    frequencies = 10000.0 ** (-2 * np.arange((width + 1) // 2) / width)
    angles = np.arange(num_distances)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width]


def skewed(scores: Float[Array, "B H T E"]) -> Float[Array, "B H T S"]:
    """Moves row t of scores by distance, M .. 0, to the columns t .. t + M of S = M + T.

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
    distance = own - jnp.arange(memory_length + num_steps)
    return (distance >= 0) & (distance <= reach[:, :, None])
