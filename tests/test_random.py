"""Our keys against JAX's own, and the cipher against the vectors of its authors."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_par import random

SHAPES = [(), (1,), (7,), (3, 5), (2, 3, 4), (0,), (2, 0, 3)]
DRAWS = {
    "split": lambda key: jax.random.key_data(jax.random.split(key, (3, 2))),
    "fold_in": lambda key: jax.random.key_data(jax.random.fold_in(key, 2**31 + 5)),
    "uniform": lambda key: jax.random.uniform(key, (5, 3), minval=-1.0, maxval=2.0),
    "normal": lambda key: jax.random.normal(key, (4, 5)),
    "permutation": lambda key: jax.random.permutation(key, 100),
    "randint": lambda key: jax.random.randint(key, (9,), -3, 1000),
    "gumbel": lambda key: jax.random.gumbel(key, (2, 3)),
    "categorical": lambda key: jax.random.categorical(key, jnp.arange(4.0), shape=(6,)),
    "bernoulli": lambda key: jax.random.bernoulli(key, 0.3, (8,)),
}


def theirs(seed):
    return jax.random.key(seed, impl="threefry2x32")


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
        (
            (0x243F6A88, 0x85A308D3),
            (0x13198A2E, 0x03707344),
            (0xC4923A9C, 0x483DF7A0),
        ),
    ],
)
def test_threefry_gives_the_published_vectors(counter, key, expected):
    """Salmon et al. (2011), kat_vectors of Random123: threefry2x32 with 20 rounds."""
    high, low = np.array(counter, np.uint32)
    words = random.threefry(jnp.array(key, jnp.uint32), jnp.array(high), jnp.array(low))
    assert tuple(map(int, words)) == expected


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_bits_are_those_of_jax(width, shape):
    draw = jax.jit(lambda key: jax.random.bits(key, shape, f"uint{width}"))
    with jax.enable_x64(width == 64):
        ours, expected = draw(random.key(3)), draw(theirs(3))
    assert ours.dtype == expected.dtype
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.sample(2)
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_draws_are_those_of_jax(draw):
    expected = draw(theirs(11))
    np.testing.assert_array_equal(draw(random.key(11)), expected)
    np.testing.assert_array_equal(
        jax.jit(draw)(random.key(11)), jax.jit(draw)(theirs(11))
    )


@pytest.mark.sample(3)
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_draws_under_vmap_are_those_of_jax(draw):
    ours, expected = (
        jax.jit(jax.vmap(draw))(jax.random.split(key, 3))
        for key in (random.key(5), theirs(5))
    )
    np.testing.assert_array_equal(ours, expected)
    alone = jnp.stack([draw(key) for key in jax.random.split(random.key(5), 3)])
    # The fused normal of a batch may round otherwise.
    np.testing.assert_allclose(ours, alone, rtol=1e-5, atol=1e-6)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), data=st.integers(0, 2**32 - 1))
def test_any_seed_and_fold_are_those_of_jax(seed, data):
    ours, expected = (
        jax.random.key_data(jax.random.fold_in(key, jnp.uint32(data)))
        for key in (random.key(seed), theirs(seed))
    )
    np.testing.assert_array_equal(ours, expected)


def test_a_seed_may_be_traced_and_batched():
    seeds = jnp.arange(5)
    ours = jax.jit(jax.vmap(lambda seed: jax.random.bits(random.key(seed))))(seeds)
    expected = [jax.random.bits(theirs(seed)) for seed in range(5)]
    np.testing.assert_array_equal(ours, jnp.stack(expected))


def test_folds_and_splits_of_one_key_are_all_different():
    key = random.key(0)
    folds = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(1000))
    splits = jax.vmap(lambda one: jax.random.split(one, 3))(folds[:100])
    keys = (key[None], folds, splits.ravel())
    words = np.concatenate([jax.random.key_data(x) for x in keys])
    assert len(np.unique(words, axis=0)) == len(words)


@pytest.mark.parametrize("n", [7, 61, 64, 90])
def test_a_permutation_has_every_number_once_in_an_order_of_its_key(n):
    keys = jax.random.split(random.key(0), 3000)
    draw = jax.jit(jax.vmap(lambda key: random.permutation(key, n)))
    orders = np.asarray(draw(keys))
    assert (np.sort(orders, axis=1) == np.arange(n)).all()
    # Every number is in every place as often: 5 standard deviations of a frequency.
    for place in (0, n // 2, n - 1):
        frequencies = np.bincount(orders[:, place], minlength=n) / len(orders)
        deviation = np.sqrt(1 / n / len(orders))
        np.testing.assert_allclose(frequencies, 1 / n, atol=5 * deviation)
    # Nor do neighbours stay so.
    neighbours = np.mean(np.diff(orders[:, :2]) == 1)
    assert neighbours < 3 / n


@pytest.mark.sample(1)
@pytest.mark.parametrize("n", [64, 90])
def test_pairs_of_places_are_as_good_as_independent(n):
    """Numbers are a grid: after one round, those of a column never share a row."""
    width = n // max(a for a in range(1, 10) if n % a == 0)
    keys = jax.random.split(random.key(1), 4000)
    draw = jax.jit(jax.vmap(lambda key: random.permutation(key, n)))
    orders = np.asarray(draw(keys))
    for place in (1, width, width + 1, n - 1):
        first, second = orders[:, 0], orders[:, place]
        counts = np.bincount((second - first) % n, minlength=n)[1:]
        assert scipy.stats.chisquare(counts).pvalue > 1e-5
        for same, others in (
            (first // width == second // width, width - 1),
            (first % width == second % width, n // width - 1),
        ):
            expected = others / (n - 1)
            deviation = np.sqrt(expected * (1 - expected) / len(keys))
            assert abs(np.mean(same) - expected) < 5 * deviation


def test_bits_are_unrolled_arithmetic():
    """Whatever JAX compiles its own cipher to, ours is no call and no loop."""
    jaxpr = str(jax.make_jaxpr(lambda: jax.random.bits(random.key(0), (4,)))())
    after_seeding = jaxpr.split("random_bits")[-1]
    assert "while" not in after_seeding and "scan" not in after_seeding
    compiled = jax.jit(lambda key: jax.random.bits(key, (64,))).lower(random.key(0))
    assert "while" not in compiled.compile().as_text()
    reference = jax.jit(lambda key: jax.random.bits(key, (64,))).lower(theirs(0))
    assert "while" in reference.compile().as_text()


def test_more_than_a_counter_can_number_is_refused():
    with pytest.raises(ValueError, match=r"2\*\*32 elements"):
        jax.jit(lambda key: jax.random.bits(key, (2**16, 2**16))).lower(random.key(0))


@pytest.mark.parametrize(
    "seed",
    [2**32, 2**63, 10**400, -1, -(2**31), 1.0, 1.5, True, jnp.float32(1.0),
     jnp.int32(-1), np.int64(-1), jnp.arange(2)],
)  # fmt: skip
def test_a_seed_of_which_bits_would_be_lost_is_refused(seed):
    """JAX takes 0 and 2**32 for the same seed, and says nothing."""
    key = inspect.unwrap(random.key)  # without the checks that tests add
    with pytest.raises(ValueError, match=r"^seed must be a whole number"):
        key(seed)


def test_the_largest_seed_is_another_one():
    seeds = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, jnp.uint32(2**32 - 2)]
    key = inspect.unwrap(random.key)
    bits = {int(jax.random.bits(key(seed))) for seed in seeds}
    assert len(bits) == len(seeds)


def test_a_permutation_is_the_same_although_numbers_may_have_64_bits():
    order = random.permutation(random.key(3), 512)
    with jax.enable_x64(True):
        again = random.permutation(random.key(3), 512)
    np.testing.assert_array_equal(order, again)
