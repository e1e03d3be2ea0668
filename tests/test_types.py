"""Records that everything exchanges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.types import Box, Count, Discrete, TimeStep, Trajectory, example


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


def trajectory_of(num_lanes, start=0):
    """2 rows, 3 steps; every leaf says its lane and its time."""
    lanes = np.arange(start, start + num_lanes, dtype=np.float32)
    steps, rows = lanes + 10 * np.arange(3)[:, None], lanes + 10 * np.arange(2)[:, None]
    flags = jnp.asarray(steps % 2 == 0)
    return Trajectory(
        TimeStep({"x": jnp.asarray(steps)}, flags, flags), jnp.asarray(rows),
        jnp.asarray(rows), jnp.asarray(rows), {"y": jnp.asarray(rows)}, (lanes,),
    )  # fmt: skip


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_lanes_of_a_trajectory_take_their_carry_along():
    taken = trajectory_of(4).lanes(jnp.array([2, 3]))
    assert_same(taken, trajectory_of(2, start=2))


def test_joined_trajectories_have_the_lanes_of_all_in_order():
    parts = [trajectory_of(2), trajectory_of(1, 2), trajectory_of(2, 3)]
    assert_same(Trajectory.join(parts), trajectory_of(5))
    assert Trajectory.join(parts[:1]) is parts[0]


def test_an_item_is_a_lane_with_its_carry():
    items = trajectory_of(4).lanes_first()
    assert items.steps.first.shape == (4, 3)
    assert items.reward.shape == (4, 2)
    third = jax.tree.map(lambda x: x[2:3], items)
    assert_same(third.time_first(), trajectory_of(1, start=2))


def test_all_steps_but_the_final_one_are_acted_in():
    np.testing.assert_array_equal(
        trajectory_of(4).rows.obs["x"], trajectory_of(4).action
    )


def test_a_box_is_shown_in_a_line():
    pixels = Box((84, 84, 3), np.dtype(np.uint8), np.zeros((84, 84, 3)), 255.0)
    assert repr(pixels) == "Box((84, 84, 3), uint8, 0 to 255)"
    assert str(Box((3,))) == "Box((3,), float32, -inf to inf)"
    low, high = np.array([-4.8, -np.inf]), np.array([4.8, np.inf])
    assert repr(Box((2,), low=low, high=high)).endswith("[-4.8, -inf] to [4.8, inf])")
    many = Box((20,), low=np.arange(20.0) - 19, high=1.0)
    assert repr(many) == "Box((20,), float32, [-19 .. 0] to 1)"
    assert "nothing to inf" in repr(Box((0,), low=np.zeros(0)))
    assert "\n" not in repr({"pixels": pixels, "many": many})


@pytest.mark.parametrize(
    "bound", [0.1, -0.1, 0.7, 1e-50, 1e39, 0.5, np.inf, 16777217.0]
)
def test_inner_bounds_are_the_nearest_that_float32_has_within(bound):
    low, high = Box((), np.dtype(np.float64), low=bound, high=bound).inner
    assert low.dtype == high.dtype == np.float32
    assert np.float64(low) >= bound >= np.float64(high)
    # The next ones outwards are not within.
    outwards = np.nextafter([low, high], np.float32([-np.inf, np.inf]))
    below, above = np.float64(outwards)
    assert below < bound or low == -np.inf
    assert above > bound or high == np.inf
