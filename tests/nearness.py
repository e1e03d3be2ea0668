"""How near two results are to which no promise of bits applies."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def assert_near(actual: Any, expected: Any, bound: float = 1e-5) -> None:
    """No leaf differs by more than a share of its largest element.

    Not element by element: those near zero differ between processors.
    """
    leaves, tree = jax.tree.flatten_with_path(expected)
    for x, (path, y) in zip(tree.flatten_up_to(actual), leaves, strict=True):
        x, y = _numbers(x), _numbers(y)
        np.testing.assert_allclose(
            x,
            y,
            rtol=0,
            atol=bound * np.abs(y).max(initial=0.0),
            err_msg=jax.tree_util.keystr(path),
        )


def _numbers(x: Any) -> np.ndarray:
    if jnp.issubdtype(jnp.asarray(x).dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x, np.float64)
