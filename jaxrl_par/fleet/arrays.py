"""Trees of arrays on their way between processes.

What arrives lies in the object store, read-only, as long as somebody has it. JAX takes
aligned arrays of NumPy as they are, on CPU also with may_alias=False (jax 0.10), and
would read what the store puts there later. So it is copied first.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import prng_key


def on_host(tree: Any) -> Any:
    """To be sent: leaves in NumPy. Keys, which it has not, are sent as they are."""
    return jax.tree.map(lambda x: x if _is_key(x) else np.asarray(x), tree)


def own(tree: Any) -> Any:
    """What has arrived, in memory of its own."""
    return jax.tree.map(lambda x: x if _is_key(x) else np.array(x), tree)


def own_on(device: Any, tree: Any) -> Any:
    """The same on a `jax.Device`."""
    return jax.device_put(own(tree), device)


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, prng_key)
