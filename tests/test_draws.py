"""What NumPy draws from a key is what JAX draws from it."""

import jax
import numpy as np
import pytest

from jaxrl_par import draws, random

KEYS = jax.random.split(random.key(3), 4)
WORDS = np.asarray(jax.random.key_data(KEYS))


def words(keys):
    return np.asarray(jax.random.key_data(keys))


@pytest.mark.parametrize("number", [0, 1, 999_999, 2**32 - 1])
def test_keys_that_are_folded_are_those_of_jax(number):
    theirs = jax.vmap(lambda key: jax.random.fold_in(key, np.uint32(number)))(KEYS)
    np.testing.assert_array_equal(draws.fold_in(WORDS, number), words(theirs))
    ours = draws.fold_in(WORDS[2], number)
    np.testing.assert_array_equal(ours, words(theirs)[2])


@pytest.mark.parametrize("num", [1, 2, 7])
def test_keys_that_are_split_are_those_of_jax(num):
    theirs = words(jax.vmap(lambda key: jax.random.split(key, num))(KEYS))
    np.testing.assert_array_equal(draws.split(WORDS, num), theirs)


@pytest.mark.parametrize("shape", [(), (5,), (3, 7)])
def test_uniform_numbers_are_those_of_jax_bit_for_bit(shape):
    theirs = jax.vmap(lambda key: jax.random.uniform(key, shape))(KEYS)
    ours = draws.uniform(WORDS, shape)
    np.testing.assert_array_equal(ours, np.asarray(theirs))
    assert ours.dtype == np.float32


def test_normal_numbers_are_those_of_jax_up_to_rounding():
    """Far in the tails too: of 400,000 numbers some are beyond 4.5."""
    theirs = np.asarray(jax.vmap(lambda key: jax.random.normal(key, (100_000,)))(KEYS))
    ours = draws.normal(WORDS, (100_000,))
    assert np.abs(theirs).max() > 4.4 and ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
