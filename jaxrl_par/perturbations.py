"""Noise on the parameters of a population's members, drawn anew wherever it is needed.

Nobody keeps or sends the noise of a member: its key gives it again. So what workers
exchange is the fitness of members, however large the network is.

Source: Salimans et al., arXiv:1703.03864, section 2.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from jaxrl_par.errors import RefusedError, above, at_least, at_most
from jaxrl_par.types import Params, PRNGKey

_LARGEST_TABLE = 2**28


@dataclass(frozen=True)
class NoiseConfig:
    """How far members are from the parameters, and where their noise comes from."""

    sigma: float = 0.1
    """Standard deviation of the noise on each parameter."""
    table_size: int | None = None
    """Numbers of a table that all share, in which a member's noise begins anywhere.
    None: each member's is drawn afresh. A table is faster for large networks; noise of
    members overlaps, and so is slightly correlated."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = above(self, sigma=0) + at_least(self, table_size=1)
        return found + at_most(self, table_size=_LARGEST_TABLE)


class Evolving(NamedTuple):
    """Parameters on which members have noise of their own, anywhere in what acts."""

    params: Params


def noise_of(
    config: NoiseConfig, key: PRNGKey, pair: Int[Array, ""], size: int
) -> Float[Array, " size"]:
    """Standard normal noise of a pair of members, on all parameters raveled.

    Args:
      key: that of the generation, the same for all members and devices.

    Raises:
      RefusedError: as `refuse_size`.
    """
    refuse_size(config, size)
    own = jax.random.fold_in(key, pair)
    if config.table_size is None:
        return jax.random.normal(own, (size,))
    begin = jax.random.randint(own, (), 0, config.table_size - size + 1)
    return jax.lax.dynamic_slice(_table(config.table_size), (begin,), (size,))


def refuse_size(config: NoiseConfig, size: int) -> None:
    """Accepts noise for so many parameters.

    Raises:
      RefusedError: the table is shorter than the parameters are many.
    """
    if config.table_size is not None and config.table_size < size:
        raise RefusedError(
            f"noise.table_size must be at least the {size} parameters of the network,"
            f" got {config.table_size}"
        )


def num_evolving(params: Params) -> int:
    """How many numbers in the parameters, or in their shapes, have noise."""
    return sum(x.size for x in jax.tree.leaves(_parts(params)))


def shifted(params: Params, offset: Float[Array, " D"]) -> Params:
    """The parameters with `offset` added to the numbers that have noise."""
    begin = 0

    def moved(part: Any) -> Any:
        nonlocal begin
        if not isinstance(part, Evolving):
            return part
        flat, unravel = ravel_pytree(part.params)
        begin, here = begin + flat.size, begin
        return Evolving(unravel(flat + offset[here:begin]))

    return _map(moved, params)


def _map(function: Callable[[Any], Any], params: Params) -> Params:
    return jax.tree.map(function, params, is_leaf=lambda x: isinstance(x, Evolving))


def _parts(params: Params) -> list[Any]:
    leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, Evolving))
    return [x.params for x in leaves if isinstance(x, Evolving)]


@cache
def _table(size: int) -> Float[Array, " size"]:
    """The table; the same in every process, on the same kind of device."""
    with jax.ensure_compile_time_eval():
        return jax.random.normal(jax.random.key(0), (size,), jnp.float32)
