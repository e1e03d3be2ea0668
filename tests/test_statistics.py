"""Statistics of several devices are those of one that has all of the data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par import statistics
from jaxrl_par.axis import Axis

AXIS = Axis("device")


def on_devices(function, *inputs):
    """What every one of the devices finds, [D, ...]."""
    return jax.jit(jax.vmap(function, axis_name="device"))(*inputs)


def data(num_devices):
    rng = np.random.default_rng(num_devices)
    x = rng.normal(3.0, 5.0, (num_devices, 7, 4, 2)).astype(np.float32)
    return x, rng.random((num_devices, 7, 4)) < 0.7


def assert_moments(found, kept, num_devices):
    np.testing.assert_allclose(found.count, len(kept) / num_devices, rtol=1e-6)
    np.testing.assert_allclose(found.mean, kept.mean(0), rtol=1e-4)
    np.testing.assert_allclose(found.variance, kept.var(0), rtol=1e-4)


@pytest.mark.parametrize("num_devices", [1, 2, 4])
def test_moments_are_those_of_all_rows_that_are_kept(num_devices):
    x, keep = data(num_devices)
    found = on_devices(lambda x, k: statistics.moments(x, k, AXIS), x, keep)
    for device in range(num_devices):
        one = jax.tree.map(lambda leaf: leaf[device], found)  # noqa: B023
        assert_moments(one, x[keep], num_devices)


def test_moments_of_nothing_are_zero():
    x, keep = data(1)
    found = statistics.moments(jnp.asarray(x), jnp.zeros(keep.shape, bool), Axis())
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(found))


def test_merged_moments_are_those_of_the_rows_of_both():
    x, keep = data(3)
    x, keep = jnp.asarray(x), jnp.asarray(keep)
    both = statistics.merged(
        statistics.moments(x[0], keep[0], Axis()),
        statistics.moments(x[1:], keep[1:], Axis()),
    )
    assert_moments(both, np.asarray(x[keep]), 1)


def test_half_precision_rows_are_counted_in_float32():
    x = jnp.full((4000,), 100.0, jnp.float16).at[0].set(101.0)
    found = statistics.moments(x, jnp.ones(4000, bool), Axis())
    assert_moments(found, np.asarray(x, np.float64), 1)


def test_moments_that_are_not_finite_are_not_merged():
    """Of finite rows, whose squares are not."""
    old = statistics.Moments(jnp.float32(3), jnp.ones(2), jnp.ones(2))
    x = jnp.array([[1.0, 1.0], [1.0, -1e30]])
    new = statistics.moments(x, jnp.ones(2, bool), Axis())
    assert np.isinf(new.variance[1])
    jax.tree.map(np.testing.assert_array_equal, statistics.merged(old, new), old)


def test_what_is_kept_gets_mean_0_and_deviation_1():
    x, keep = data(2)
    y = on_devices(lambda x, k: statistics.standardized(x, k, AXIS), x[..., 0], keep)
    kept = np.asarray(y)[keep]
    np.testing.assert_allclose([kept.mean(), kept.std()], [0.0, 1.0], atol=1e-5)
    assert np.all(np.asarray(y)[~keep] == 0.0)


@pytest.mark.parametrize("num_devices", [1, 3, 4])
@pytest.mark.parametrize("ties", [False, True])
def test_means_over_devices_find_the_kth_largest_of_all(num_devices, ties):
    rng = np.random.default_rng(num_devices)
    x = rng.normal(size=(num_devices, 9)) * 10.0 ** rng.integers(-6, 6)
    x = np.round(3 * x / np.abs(x).max()) if ties else x
    x[0, :3] = [0.0, -0.0, -np.inf]
    keep = rng.random(x.shape) < 0.7
    kept = np.sort(np.float32(x[keep]))[::-1]
    wanted = np.arange(1, len(kept) + 1)

    def one(x, keep):
        # A third is rounded, and so a little less is asked for.
        exact = 0.9999 if num_devices == 3 else 1.0
        counts = jnp.asarray(wanted / num_devices, jnp.float32) * exact
        return statistics.reached(x, keep, counts, AXIS)

    found = on_devices(one, jnp.float32(x), keep)
    for row in found:
        np.testing.assert_array_equal(row, kept)


@pytest.mark.parametrize("number", [1e4 / 3, -123456.7, 3e7])
@pytest.mark.parametrize("num_rows", [3, 100, 1000])
def test_equal_numbers_do_not_deviate_though_their_mean_is_rounded(number, num_rows):
    x, keep = jnp.full(num_rows, number, jnp.float32), jnp.ones(num_rows, bool)
    found = jax.jit(lambda: statistics.moments(x, keep, Axis()))()
    assert float(found.mean) == float(x[0])
    assert not np.any(statistics.standardized(x, keep, Axis()))
