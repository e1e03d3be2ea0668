"""Keys as suites keep them in their states."""

import jax
from jaxtyping import Array, UInt32

from jaxrl_par.types import PRNGKey


def words(key: PRNGKey) -> UInt32[Array, "2"]:
    """The two words of a key, which JAX takes for one of its own kind.

    Suites put keys into states and `info`. As plain numbers these can be saved, drawn
    and sent as all else of a state, and their draws are small programs: on CPU ours are
    unrolled, and a world of hundreds of draws would not come to an end compiling.
    """
    return jax.random.key_data(key)
