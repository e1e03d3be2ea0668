"""What GTrXL puts in place of residual additions.

x is the stream and y what a submodule adds to it, both [N, D]. Matrices have no bias;
b is the gate's own, and positive values make the gate start near x, so that the network
is reactive before it learns to remember.

Source: Parisotto et al., arXiv:1910.06764, section 3.2.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrl_par.networks.layers import product

Kind = Literal["residual", "input", "output", "highway", "sigmoid_tanh", "gru"]

BIASES = {"output": 1.0, "highway": 1.0, "sigmoid_tanh": 1.0, "gru": 2.0}
"""The paper's b, for the gates that have one."""

Rows = Float[Array, "N D"]


class Gate(nn.Module):
    """Joins a stream and what a submodule adds to it.

    residual:      x + y
    input:         s(W x) x + y
    output:        x + s(W x - b) y
    highway:       s(W x + b) x + (1 - s(W x + b)) y
    sigmoid_tanh:  x + s(W y - b) tanh(U y)
    gru:           r = s(W_r y + U_r x);  z = s(W_z y + U_z x - b)
                   h = tanh(W_h y + U_h (r x));  (1 - z) x + z h
    """

    kind: Kind
    bias: float | None = None
    """Initial b. None: the paper's."""
    dtype: DTypeLike = jnp.float32
    """Dtype of the products; the rest is float32."""

    @nn.compact
    def __call__(self, x: Rows, y: Rows) -> Rows:
        if self.kind == "residual":
            return x + y
        if self.kind == "input":
            return jax.nn.sigmoid(self._product("w", x)) * x + y
        initial = BIASES[self.kind] if self.bias is None else self.bias
        init = nn.initializers.constant(initial)
        b = self.param("bias", init, (x.shape[1],), jnp.float32)[None]
        if self.kind == "output":
            return x + jax.nn.sigmoid(self._product("w", x) - b) * y
        if self.kind == "highway":
            share = jax.nn.sigmoid(self._product("w", x) + b)
            return share * x + (1.0 - share) * y
        if self.kind == "sigmoid_tanh":
            w, u = jnp.split(self._product("wu", y, 2), 2, axis=1)
            return x + jax.nn.sigmoid(w - b) * jnp.tanh(u)
        r_y, z_y, h_y = jnp.split(self._product("w", y, 3), 3, axis=1)
        r_x, z_x = jnp.split(self._product("u", x, 2), 2, axis=1)
        r, z = jax.nn.sigmoid(r_y + r_x), jax.nn.sigmoid(z_y + z_x - b)
        h = jnp.tanh(h_y + self._product("u_h", r * x))
        return (1.0 - z) * x + z * h

    def _product(self, name: str, x: Rows, count: int = 1) -> Float[Array, "N F"]:
        """`count` square matrices side by side, times x."""
        width = x.shape[1]
        shape = (width, count * width)
        kernel = self.param(name, nn.initializers.lecun_normal(), shape, jnp.float32)
        return product(x, kernel, self.dtype)
