"""Records that everything exchanges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.types import Box, Count, Discrete, example


def test_a_count_passes_a_million_and_the_range_of_int32():
    count, total = Count.zero(), 0
    for amount in (0, 999_999, 1, 2**31 - 1_000_001, 2**31 - 1_000_001, 7):
        count, total = count.add(amount), total + amount
        assert int(count) == total
        assert 0 <= int(count.units) < 1_000_000
    assert total > 2**32 - 2_000_003


def test_a_count_is_a_carry_of_a_scan():
    def add(count, amount):
        return count.add(amount), ()

    amounts = jnp.full(5000, 987_654, jnp.int32)
    count, _ = jax.jit(lambda: jax.lax.scan(add, Count.zero(), amounts))()
    assert int(count) == 5000 * 987_654


@pytest.mark.parametrize(
    ("box", "bounded"),
    [
        (Box((2,)), False),
        (Box((2,), low=0.0), False),
        (Box((2,), low=0.0, high=np.array([1.0, np.inf])), False),
        (Box((2,), low=0.0, high=np.array([1.0, 2.0])), True),
    ],
)
def test_a_box_is_bounded_if_every_element_is(box, bounded):
    assert box.bounded == bounded


def test_an_example_has_the_shapes_and_dtypes_of_its_specs():
    specs = {"image": Box((3, 2), np.dtype(np.uint8)), "goal": Discrete(5)}
    zeros = example(specs, 4)
    assert zeros["image"].shape == (4, 3, 2) and zeros["image"].dtype == np.uint8
    assert zeros["goal"].shape == (4,) and zeros["goal"].dtype == np.int32
    assert not any(x.any() for x in jax.tree.leaves(zeros))
    assert example(Discrete(2), 3).shape == (3,)
