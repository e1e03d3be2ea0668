"""Recurrent memory with resets: LSTM and GRU, features first inside.

A carry has leaves [B, width]. It is cleared where a step is `first`, before it is read.
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_par.networks.layers import orthogonal
from jaxrl_par.types import Carry

Kind = Literal["lstm", "gru"]


class LSTMCarry(NamedTuple):
    """Cell and output of an LSTM, both [B, width]."""

    cell: Float[Array, "B H"]
    hidden: Float[Array, "B H"]


def initial_carry(kind: Kind, width: int, num_envs: int) -> Carry:
    """An empty memory."""
    zeros = jnp.zeros((num_envs, width))
    return LSTMCarry(zeros, zeros) if kind == "lstm" else zeros


class Memory(nn.Module):
    """Reads T steps of features in order.

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
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, carry: Carry, x: Float[Array, "D T*B"], first: Bool[Array, "T B"]
    ) -> tuple[Float[Array, "H T*B"], Carry]:
        num_gates = 4 if self.kind == "lstm" else 3
        rows = num_gates * self.width
        w = self.param("input", orthogonal(1.0), (x.shape[0], rows))
        u = self.param("recurrent", orthogonal(1.0), (self.width, rows))
        b = self.param("bias", nn.initializers.zeros, (rows,))
        u_t = u.T.astype(self.dtype)
        gates = w.T.astype(self.dtype) @ x.astype(self.dtype)
        gates = gates.astype(jnp.float32) + b[:, None]
        if self.kind == "lstm":
            cell = _lstm
        else:
            d = self.param("candidate_bias", nn.initializers.zeros, (self.width,))

            def cell(carry, gates, recurrent):
                return _gru(carry, gates, recurrent, d[:, None])

        def step(carry, inputs):
            gates, first = inputs
            carry = jax.tree.map(lambda leaf: jnp.where(first, 0.0, leaf), carry)
            hidden = carry.hidden if isinstance(carry, LSTMCarry) else carry
            recurrent = (u_t @ hidden.astype(self.dtype)).astype(jnp.float32)
            return cell(carry, gates, recurrent)

        length = first.shape[0]
        carry = jax.tree.map(jnp.transpose, carry)
        if length == 1:
            carry, y = step(carry, (gates, first[0]))
        else:
            gates = gates.reshape(rows, length, -1).swapaxes(0, 1)
            carry, y = jax.lax.scan(step, carry, (gates, first))
            y = y.swapaxes(0, 1).reshape(self.width, -1)
        return y, jax.tree.map(jnp.transpose, carry)


def _lstm(carry, gates, recurrent):
    i, f, g, o = jnp.split(gates + recurrent, 4)
    cell = jax.nn.sigmoid(f + 1.0) * carry.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
    return LSTMCarry(cell, hidden), hidden


def _gru(hidden, gates, recurrent, candidate_bias):
    (r, z, n), (r_h, z_h, n_h) = jnp.split(gates, 3), jnp.split(recurrent, 3)
    r, z = jax.nn.sigmoid(r + r_h), jax.nn.sigmoid(z + z_h)
    n = jnp.tanh(n + r * (n_h + candidate_bias))
    hidden = (1.0 - z) * n + z * hidden
    return hidden, hidden
