"""Own data beside demonstrations: shares, priorities and weights of both."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxrl_par import random
from jaxrl_par.axis import Axis
from jaxrl_par.replay import PriorityConfig, Windows, mixed, sum_tree
from jaxrl_par.replay.mixed import Mixed
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.types import Info, TimeStep, Trajectory

KEY = random.key(0)
ONE = Windows(1)
EXACT = PriorityConfig(alpha=1.0, eps=0.0, beta=1.0)
NOBODY = 100.0
"""Demonstrations have numbers from here on."""


def unroll(numbers, rows=1, last=()):
    """One lane for each number, which rewards tell, with the row as a fraction."""
    lanes = jnp.asarray(numbers, jnp.float32)
    row = jnp.arange(rows + 1)[:, None]
    obs = lanes + row / 16
    ended = jnp.broadcast_to(jnp.isin(row, jnp.asarray(last)), obs.shape)
    reward = obs[:-1]
    ones = jnp.ones_like(reward)
    return Trajectory(TimeStep(obs, ended, ended), reward, reward, ones, {}, ())


def demonstrations(number=4, rows=1, last=()):
    """As they are read from a folder: NumPy's arrays."""
    return jax.device_get(unroll(NOBODY + np.arange(number), rows, last))


def filled(buffer, *trajectories):
    data = buffer.init(jax.eval_shape(lambda: trajectories[0]))
    for one in trajectories:
        data = jax.jit(buffer.add)(data, (), one)
    return data


def sample(buffer, data, key=KEY, axis=Axis()):
    sampled = jax.jit(buffer.sample, static_argnums=3)
    return sampled(data, unroll([0.0]), key, axis)


def learned(buffer, data, priority_of, key=KEY):
    """After one batch, whose windows get the priorities of their rewards."""
    batch, drawn = sample(buffer, data, key)
    errors = jnp.asarray([priority_of[float(x)] for x in batch.reward[0]])
    update = jax.jit(buffer.update, static_argnums=3)
    return update(data, drawn, Info({}, errors), Axis())


def masses(data):
    """(of own windows, of demonstrations)"""
    return tuple(np.asarray(x.tree.masses) for x in data)


@pytest.mark.parametrize("config", [None, EXACT], ids=["uniform", "prioritised"])
@pytest.mark.slow
def test_each_element_is_a_demonstration_with_the_probability_that_was_asked_for(
    config,
):
    """Also where the batch times the ratio is below 1/2, which rounds to none."""
    buffer = mixed(demonstrations(), 4, 64, ONE, config, ratio=1 / 256)
    data = filled(buffer, unroll(range(4)))

    def count(total, key):
        batch, _ = sample(buffer, data, key)
        return total + jnp.sum(batch.reward >= NOBODY), None

    keys = jax.random.split(KEY, 100_000)
    total, _ = jax.jit(lambda: jax.lax.scan(count, 0, keys))()
    assert abs(int(total) / (64 * 100_000) - 0.00390625) < 1e-4


@pytest.mark.parametrize("config", [None, EXACT], ids=["uniform", "prioritised"])
@pytest.mark.slow
def test_windows_are_whole_and_drawn_as_their_own_buffer_says(config):
    buffer = mixed(demonstrations(), 4, 4000, ONE, config, ratio=1 / 4)
    data = filled(buffer, unroll(range(4)))
    if config is not None:
        errors = dict.fromkeys([0, 100], 1) | dict.fromkeys([1, 2, 3, 101, 102, 103], 3)
        data = learned(buffer, data, errors)
    batch, drawn = sample(buffer, data, random.key(1))
    number = np.asarray(batch.reward[0])
    shares = (
        np.array([1, 1, 1, 1]) / 4 if config is None else np.array([1, 3, 3, 3]) / 10
    )
    for first, share in ((0, 3 / 4), (100, 1 / 4)):
        counts = [(number == first + i).mean() for i in range(4)]
        np.testing.assert_allclose(counts, share * shares, atol=0.02)
    np.testing.assert_array_equal(drawn.demonstration, number >= NOBODY)
    # All that belongs to a row comes from the same window.
    np.testing.assert_array_equal(batch.steps.obs[0], number)
    np.testing.assert_array_equal(batch.steps.obs[1], number + 1 / 16)
    np.testing.assert_array_equal(batch.action[0], number)


def test_priorities_go_to_the_buffer_and_the_window_that_they_are_of():
    buffer = mixed(demonstrations(), 4, 64, ONE, EXACT, ratio=1 / 2)
    data = filled(buffer, unroll(range(4)))
    numbers = [*range(4), *range(100, 104)]
    data = learned(buffer, data, dict(zip(numbers, range(2, 10), strict=True)))
    own, theirs = masses(data)
    np.testing.assert_array_equal(own[:4], [2, 3, 4, 5])
    np.testing.assert_array_equal(theirs[:4], [6, 7, 8, 9])
    # What was drawn there and not taken has the priority that it had.
    rare = mixed(demonstrations(), 4, 64, ONE, EXACT, ratio=1e-6)
    own, theirs = masses(
        learned(rare, filled(rare, unroll(range(4))), dict.fromkeys(range(4), 7))
    )
    np.testing.assert_array_equal(own[:4], [7, 7, 7, 7])
    np.testing.assert_array_equal(theirs[:4], [1, 1, 1, 1])


def with_masses(data, own, theirs):
    """Masses set by hand, of windows that are there."""
    given = []
    for part, values in zip(data, (own, theirs), strict=True):
        tree = jax.tree.map(jnp.zeros_like, part.tree)
        index = jnp.arange(len(values))
        tree = sum_tree.write(tree, index, jnp.asarray(values, jnp.float32))
        given.append(part._replace(tree=tree))
    return Mixed(*given)


# N P is .4, 1.2, 1.2, 1.2 of own windows, and 1.6, .4 of demonstrations.
OWN, THEIRS = (1, 3, 3, 3), (4, 1)
WEIGHTS = {0: 1, 1: 1 / 3, 2: 1 / 3, 3: 1 / 3, 100: 1 / 4, 101: 1}


def weights_by_number(batch):
    number = np.asarray(batch.reward[0]).tolist()
    return dict(zip(number, np.asarray(batch.extras["weight"][0]), strict=True))


def test_weights_undo_the_priorities_of_each_buffer_and_not_the_ratio():
    """The largest of the joint batch is 1, from whichever buffer it comes."""
    for beta in (1.0, 0.5):
        config = replace(EXACT, beta=beta)
        buffer = mixed(demonstrations(2), 4, 256, ONE, config, ratio=1 / 8)
        data = with_masses(filled(buffer, unroll(range(4))), OWN, THEIRS)
        found = weights_by_number(sample(buffer, data)[0])
        assert found == pytest.approx({i: w**beta for i, w in WEIGHTS.items()})


@pytest.mark.slow
def test_with_whole_weights_the_loss_is_that_of_two_uniform_draws():
    """rho times the mean over demonstrations, 1 - rho times that over own windows."""
    config = EXACT
    buffer = mixed(demonstrations(2), 4, 20_000, ONE, config, ratio=1 / 4)
    data = with_masses(filled(buffer, unroll(range(4))), OWN, THEIRS)
    batch, _ = sample(buffer, data)
    weight, number = (np.asarray(x[0]) for x in (batch.extras["weight"], batch.reward))
    share = [weight[number == i].sum() / weight.sum() for i in WEIGHTS]
    np.testing.assert_allclose(share, [3 / 16] * 4 + [1 / 8] * 2, rtol=0.06)


@pytest.mark.slow
def test_only_windows_that_can_be_drawn_are_counted():
    """Of four rows of a lane two are `last`, and half of the capacity is empty."""
    buffer = mixed(demonstrations(2, 4, last=[1, 3]), 4, 256, ONE, EXACT, ratio=1 / 2)
    data = filled(buffer, unroll([0.0, 1.0], 4, last=[0, 1, 2]))
    batch, _ = sample(buffer, data)
    assert not np.any(batch.steps.last[0])
    np.testing.assert_allclose(batch.extras["weight"], 1.0)  # all as likely


@pytest.mark.slow
def test_demonstrations_stay_and_do_not_count_as_kept():
    buffer = mixed(demonstrations(8), 4, 64, ONE, EXACT, ratio=1 / 2, min_size=3)
    data = buffer.init(jax.eval_shape(lambda: unroll([0.0])))
    for number in range(9):
        data = buffer.add(data, (), unroll([float(number)]))
        assert bool(buffer.ready(data)) == (number >= 2)
        data = learned(buffer, data, dict.fromkeys([*range(9), *range(100, 108)], 5))
        # What is not learned from gives no priorities.
        assert set(masses(data)[1][:8].tolist()) == {1.0 if number < 2 else 5.0}
    batch, _ = sample(buffer, data)
    assert set(np.asarray(batch.reward[0]).tolist()) == {5, 6, 7, 8, *range(100, 108)}


def test_ranks_of_demonstrations_are_made_anew_too():
    config = PriorityConfig("rank", alpha=1.0)
    buffer = mixed(demonstrations(3), 3, 64, ONE, config, ratio=1 / 2)
    data = filled(buffer, unroll([0.0]), unroll([1.0]))
    data = learned(buffer, data, {0: 1, 1: 2, 100: 0.5, 101: 7, 102: 3})
    data = buffer.add(data, (), unroll([2.0]))
    np.testing.assert_allclose(masses(data)[1][:3], [1 / 3, 1, 1 / 2], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("config", [None, EXACT], ids=["uniform", "prioritised"])
def test_windows_burn_in_look_ahead_and_begin_with_the_initial_carry(config):
    """Streams of 9 rows beside unrolls of 4: windows of 2, and one row is left out."""
    windows = Windows(2, burn_in=1, lookahead=1)
    given = demonstrations(2, 9, last=[6])
    begin = partial(jnp.full, fill_value=-1.0)
    buffer = mixed(given, 2, 400, windows, config, ratio=1 / 2, initial_carry=begin)
    own = unroll(range(2), 4)
    carry = jnp.asarray(own.reward)  # the number and the row
    own = own._replace(extras={"carry": carry}, carry=carry[0])
    batch, drawn = sample(buffer, filled(buffer, own))
    assert batch.reward.shape == (4, 400)
    rows = np.asarray(batch.steps.obs)  # [5, 400]
    theirs = np.asarray(drawn.demonstration)
    np.testing.assert_array_equal(np.asarray(batch.carry)[theirs], -1.0)
    begins = np.round((rows[1] % 1) * 16).astype(int)  # of trained rows
    assert set(begins[theirs]) == {0, 2, 4, 6} and set(begins[~theirs]) == {0, 2}
    # Only a stream begins without rows before, with the carry of its first row.
    np.testing.assert_array_equal(batch.extras["padded"][0], begins == 0)
    stored = np.floor(rows[1]) + np.maximum(begins - 1, 0) / 16
    np.testing.assert_array_equal(np.asarray(batch.carry)[~theirs], stored[~theirs])
    # Behind the eight rows that fill windows the stream ends, as an unroll does.
    ended = begins == 2
    ended[theirs] = np.isin(begins[theirs], [4, 6])  # in row 6, or there is no other
    np.testing.assert_array_equal(batch.steps.last[3], ended)


def on_devices(num_devices, function, *args):
    """`function(axis, *args)` on a mesh; leaves of args and results are joined."""
    axis, mesh = Axis("data"), data_mesh(num_devices)
    run = jax.shard_map(
        partial(function, axis), mesh=mesh, in_specs=P("data"), out_specs=P("data"),
        check_vma=False,
    )  # fmt: skip
    return jax.jit(run)(*args)


@pytest.mark.slow
def test_on_a_mesh_weights_are_those_of_all_and_copies_stay_equal():
    """Two devices with two of the four own windows each, and copies of the others."""
    buffer = mixed(demonstrations(2), 2, 256, ONE, EXACT, ratio=1 / 4)

    def one(axis, number):
        data = filled(buffer, unroll([0.0, 1.0]))
        shift = 2 * number[0]
        items = data.own.unrolls.items
        items = items._replace(reward=items.reward + shift)
        own = data.own._replace(unrolls=data.own.unrolls._replace(items=items))
        shares = jnp.where(number[0] == 0, jnp.array(OWN[:2]), jnp.array(OWN[2:]))
        data = with_masses(data._replace(own=own), shares, THEIRS)
        key = jax.random.fold_in(KEY, axis.index)
        batch, drawn = sample(buffer, data, key, axis)
        # Every element has a priority of its own; the largest of a window counts.
        errors = 10 + batch.reward[0] + jnp.arange(256) / 1024 + number[0] / 8
        data = buffer.update(data, drawn, Info({}, errors), axis)
        left = [x.tree.masses[None, :2] for x in data]
        return batch.reward[0], batch.extras["weight"][0], errors, *left

    reward, weight, errors, own, theirs = map(
        np.asarray, on_devices(2, one, jnp.arange(2.0))
    )
    assert (reward >= NOBODY).mean() == pytest.approx(1 / 4, abs=0.06)
    assert dict(zip(reward.tolist(), weight, strict=True)) == pytest.approx(WEIGHTS)
    largest = [errors[reward == i].max() for i in WEIGHTS]
    np.testing.assert_allclose(own.reshape(-1), largest[:4], rtol=1e-6)
    np.testing.assert_allclose(theirs, [largest[4:]] * 2, rtol=1e-6)


@pytest.mark.slow
def test_one_device_of_a_mesh_draws_what_a_program_alone_draws():
    buffer = mixed(demonstrations(), 4, 16, ONE, EXACT, ratio=1 / 2)
    data = filled(buffer, unroll(range(4)))
    alone, _ = jax.jit(partial(sample, buffer))(data)

    def one(axis, number):
        batch, _ = sample(buffer, filled(buffer, unroll(range(4))), KEY, axis)
        return batch.reward[0], batch.extras["weight"][0]

    reward, weight = on_devices(1, one, jnp.zeros(1))
    np.testing.assert_array_equal(reward, alone.reward[0])
    np.testing.assert_array_equal(weight, alone.extras["weight"][0])


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, float("nan")])
def test_a_ratio_is_between_0_and_1(ratio):
    with pytest.raises(ValueError, match=r"ratio must be"):
        mixed(demonstrations(), 4, 8, ONE, ratio=ratio)


def test_demonstrations_that_do_not_fit_are_told():
    def refused(given, windows=ONE, own=unroll(range(4), 4)):
        buffer = mixed(given, 4, 8, windows)
        with pytest.raises(ValueError) as error:
            buffer.init(jax.eval_shape(lambda: own))
        return str(error.value)

    given = demonstrations(4, 4)
    other = given._replace(steps=given.steps._replace(obs=given.steps.obs[..., None]))
    assert refused(other).startswith(
        "demonstrations have observations float32[1], and what is acted has float32[]"
    )
    other = given._replace(action=given.action.astype(np.int32))
    assert refused(other).startswith("demonstrations have actions int32[], and what")
    told = refused(demonstrations(4, 3), Windows())
    assert told == "demonstrations must have at least 4 rows for windows of 4, got 3"
    told = refused(demonstrations(4, 3), Windows(2, burn_in=1))
    assert "at least 4 rows for windows of 2 with a burn-in, got 3" in told
    recording = unroll(range(4), 4)._replace(extras={"log_prob": np.zeros((4, 4))})
    assert "extras ['log_prob'] of its own acting" in refused(given, own=recording)
