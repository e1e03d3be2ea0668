"""Random keys: the numbers of `jax.random.key`, three to four times faster on CPU.

JAX compiles Threefry to a loop of five passes over memory on CPU, to keep programs
small. Unrolled, the twenty rounds are one kernel that fuses with what uses the bits.
Environments draw several numbers for each step, so this decides their rate.

Where XLA fuses, each user of a value may compute it again. Twenty rounds in which both
words use both words, drawn from a key that was itself drawn in this way, then multiply:
jaxlib 0.11 does not come to an end with four numbers from a key that was split. So a
key is hidden from what draws from it by an `optimization_barrier`. In an environment's
step that is as fast as before on jaxlib 0.10, and on 0.11 up to three times faster than
a barrier behind the draw, where the bits would be fused with the split again.

On accelerators JAX's own keys are unrolled already, so there `key` gives those.

Keys of this kind work in all of `jax.random`; a test compares the bits with JAX's own.

Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011), section 4.
"""

from functools import cache
from math import isqrt, prod

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.random import define_prng_impl
from jaxtyping import Array, Int, UInt, UInt32

from jaxrl_par.draws import threefry
from jaxrl_par.errors import not_a_seed, refuse_any
from jaxrl_par.types import PRNGKey


def key(seed: int | Array) -> PRNGKey:
    """A key whose streams equal those of `jax.random.key(seed, impl="threefry2x32")`.

    It is that key where JAX's default backend is no CPU.

    Args:
      seed: a whole number in [0, 2**32 - 1]; may be traced, as in a population.

    Raises:
      RefusedError: it is none. JAX leaves out higher bits, so that 2**32 would be 0,
        and -1 would be 2**32 - 1.
    """
    if not isinstance(seed, Tracer):
        known = np.asarray(seed)[()] if isinstance(seed, jax.Array) else seed
        refuse_any(not_a_seed(seed=known))
    if jax.default_backend() != "cpu":
        return jax.random.key(seed, impl="threefry2x32")
    return jax.random.wrap_key_data(_seed(seed), impl=_implementation())


@cache
def _implementation():
    """Made at first use: importing a module changes nothing in JAX."""
    return define_prng_impl(
        key_shape=(2,),
        seed=_seed,
        split=_split,
        random_bits=_bits,
        fold_in=_fold_in,
        name="threefry2x32_unrolled",
        tag="fryu",
    )


def permutation(key: PRNGKey, n: int) -> Int[Array, " n"]:
    """0 .. n - 1 in a random order, without the sort of `jax.random.permutation`.

    Numbers are written as row and column of a grid, as near to square as `n` allows.
    In each of eight rounds rows are shifted by a hash of the column, then columns by a
    hash of the row: each shift can be undone, so that all together permute. Not all n!
    orders can occur, but pairs of places are as good as independent, which is what
    minibatches need. On CPU 20 times faster than sorting (512 numbers).

    An `n` without a factor of 8 or more below its root, such as a prime, is sorted.

    Source: Black and Rogaway, Ciphers with arbitrary finite domains (CT-RSA 2002),
    section 5, the generalised Feistel network.
    """
    rows = max(a for a in range(1, isqrt(n) + 1) if n % a == 0)
    if rows < 8:
        return jax.random.permutation(key, n)
    height, width = np.uint32(rows), np.uint32(n // rows)
    row, column = jnp.divmod(jnp.arange(n, dtype=jnp.uint32), width)
    for salt in jax.random.bits(key, (8, 2), jnp.uint32):
        row = (row + _hash(column, salt[0]) % height) % height
        column = (column + _hash(row, salt[1]) % width) % width
    return (row * width + column).astype(jnp.int32)


def _hash(x: UInt32[Array, "..."], salt: UInt32[Array, ""]) -> UInt32[Array, "..."]:
    """A 32-bit mix in which every input bit reaches every output bit.

    Source: the finaliser of MurmurHash3 (Appleby, 2011).
    """
    x = x ^ salt
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def _words(key: UInt32[Array, "2"], shape: tuple[int, ...]):
    """Two words for each element of `shape`, from its index in row-major order."""
    key = jax.lax.optimization_barrier(key)
    if prod(shape) >= 2**32:
        raise ValueError(f"cannot draw {shape}: 2**32 elements or more from one key")
    # A sum of small ranges fuses; a reshaped long one would be written out first.
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride)
        stride *= shape[axis]
    return threefry(key, jnp.zeros_like(index), index)


def _seed(seed: int | Array) -> UInt32[Array, "2"]:
    return jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))


def _split(key: UInt32[Array, "2"], shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    return jnp.stack(_words(key, shape), axis=-1)


def _fold_in(key: UInt32[Array, "2"], data: int | Array) -> UInt32[Array, "2"]:
    # JAX hashes the seed that `data` would be: high word 0, low word the data.
    key = jax.lax.optimization_barrier(key)
    zero = jnp.zeros((), jnp.uint32)
    return jnp.stack(threefry(key, zero, jnp.asarray(data).astype(jnp.uint32)))


def _bits(
    key: UInt32[Array, "2"], bit_width: int, shape: tuple[int, ...]
) -> UInt[Array, "..."]:
    x, y = _words(key, shape)
    if bit_width == 64:
        return (x.astype(jnp.uint64) << np.uint64(32)) | y.astype(jnp.uint64)
    return (x ^ y).astype(f"uint{bit_width}")
