"""Recurrent memory with resets: LSTM and GRU.

A carry has leaves [B, width]. It is cleared where a step is `first`, before it is read.
"""

from functools import partial
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jaxrl_par.networks.layers import linear, orthogonal, product
from jaxrl_par.types import Carry

Kind = Literal["lstm", "gru"]


class LSTMCarry(NamedTuple):
    """Cell and output of an LSTM, both [B, width]."""

    cell: Float[Array, "B H"]
    hidden: Float[Array, "B H"]


def initial_carry(kind: Kind, width: int, num_envs: int) -> Carry:
    """An empty memory."""
    zeros = jnp.zeros((num_envs, width), jnp.float32)
    return LSTMCarry(zeros, zeros) if kind == "lstm" else zeros


class Memory(nn.Module):
    """Reads T steps of features in order, in N = T B rows.

        LSTM:  i, f, g, o = W x + U h + b;   c = s(f + 1) c + s(i) tanh(g)
               h = s(o) tanh(c)
        GRU:   r, z = s(W x + U h + b);      n = tanh(W' x + b' + r (U' h + d))
               h = (1 - z) n + z h

    What depends on x alone is one matmul for all T steps; only U h is sequential.

    Sources: Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al.
    (2000), its bias raised by 1 (Jozefowicz et al. 2015); Cho et al., arXiv:1406.1078,
    in the form of cuDNN.
    """

    kind: Kind
    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, carry: Carry, x: Float[Array, "N D"], first: Bool[Array, "T B"]
    ) -> tuple[Float[Array, "N H"], Carry]:
        num_outputs = (4 if self.kind == "lstm" else 3) * self.width
        w = self.param("input", orthogonal(1.0), (x.shape[1], num_outputs))
        u = self.param("recurrent", orthogonal(1.0), (self.width, num_outputs))
        b = self.param("bias", nn.initializers.zeros, (num_outputs,), jnp.float32)
        w, u, x = (leaf.astype(self.dtype) for leaf in (w, u, x))
        gates = linear(x, w, b.astype(self.dtype)).astype(jnp.float32)
        if self.kind == "lstm":
            cell = _lstm
        else:
            zeros = nn.initializers.zeros
            d = self.param("candidate_bias", zeros, (self.width,), jnp.float32)
            cell = partial(_gru, candidate_bias=d)

        def step(carry, inputs):
            gates, first = inputs
            carry = jax.tree.map(lambda x: jnp.where(first[:, None], 0.0, x), carry)
            hidden = carry.hidden if isinstance(carry, LSTMCarry) else carry
            return cell(carry, gates, product(hidden, u, self.dtype))

        gates = gates.reshape(*first.shape, num_outputs)
        if len(gates) == 1:
            carry, y = step(carry, (gates[0], first[0]))
        else:
            carry, y = jax.lax.scan(step, carry, (gates, first))
        return y.reshape(-1, self.width), carry


def _lstm(carry, gates, recurrent):
    i, f, g, o = jnp.split(gates + recurrent, 4, axis=-1)
    cell = jax.nn.sigmoid(f + 1.0) * carry.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
    return LSTMCarry(cell, hidden), hidden


def _gru(hidden, gates, recurrent, candidate_bias):
    r, z, n = jnp.split(gates, 3, axis=-1)
    r_h, z_h, n_h = jnp.split(recurrent, 3, axis=-1)
    r, z = jax.nn.sigmoid(r + r_h), jax.nn.sigmoid(z + z_h)
    n = jnp.tanh(n + r * (n_h + candidate_bias[None]))
    hidden = (1.0 - z) * n + z * hidden
    return hidden, hidden
