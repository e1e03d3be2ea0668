"""Virtual batch normalisation: layers that are normalised over a reference batch.

With W the kernel of a layer, b its bias, and mean and std those of x W over the batch,
computed with the same parameters, a layer in front of an activation gives

    (x W - mean) / std + b

That is a layer again, of kernel W / std and bias b - mean / std. So parameters that are
worked out once stand for the normalisation, and the network is called as before. The
mean and std of a convolution are over positions, too. Outputs are not normalised, and
there is no scale of its own: behind a relu the next layer has it.

Source: Salimans et al., arXiv:1606.03498, section 3.4; arXiv:1703.03864, section 2.2.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxrl_par.networks.images import Conv
from jaxrl_par.networks.layers import Linear
from jaxrl_par.types import Obs, Params, TimeStep

_EPSILON = 1e-3


def normalized(module: nn.Module, params: Params, obs: Obs) -> Params:
    """Parameters with which the layers of a module are normalised over observations.

    Args:
      module: is called with (carry, steps [T, B]), and has no memory.
      obs: leaves [R, ...]
    """
    leaves: dict[Any, Any] = flatten_dict(params["params"])

    def normalize(
        call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ):
        y, layer = call(*args, **kwargs), context.module
        if not isinstance(layer, Linear | Conv):
            return y
        kernel, bias = ((*layer.path, name) for name in ("kernel", "bias"))
        rows = y.astype(jnp.float32).reshape(-1, y.shape[-1])
        mean = jnp.mean(rows, axis=0)
        # Rows may be far from 0: the mean of squares would round the variance away.
        variance = jnp.mean(jnp.square(rows - mean[None]), axis=0)
        scale = jax.lax.rsqrt(variance + _EPSILON)
        start = leaves[bias]
        leaves[kernel] = leaves[kernel] * scale[None]
        leaves[bias] = start + (start - mean) * scale
        return ((rows - mean[None]) * scale[None] + start[None]).reshape(y.shape)

    rows = jax.tree.leaves(obs)[0].shape[0]
    flags = jnp.zeros((1, rows), jnp.bool_)
    steps = TimeStep(jax.tree.map(lambda x: x[None], obs), flags, flags)
    with nn.intercept_methods(normalize):
        module.apply(params, (), steps)
    return params | {"params": unflatten_dict(leaves)}
