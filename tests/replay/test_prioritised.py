"""Prioritised replay against the paper's formulas, on one device and on several."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxrl_par import random
from jaxrl_par.axis import Axis
from jaxrl_par.replay import PriorityConfig, Windows, prioritised
from jaxrl_par.topologies.sharded import data_mesh
from jaxrl_par.types import Info, TimeStep, Trajectory

KEY = random.key(0)
ONE = Windows(1)
EXACT = PriorityConfig(alpha=1.0, eps=0.0)


def unroll(numbers, rows=1, priority=None, last=()):
    """One lane for each number, which rewards tell, with the row as a fraction."""
    lanes = jnp.asarray(numbers, jnp.float32)
    row = jnp.arange(rows + 1)[:, None]
    obs = lanes + row / 16
    ended = jnp.broadcast_to(jnp.isin(row, jnp.asarray(last)), obs.shape)
    extras = {} if priority is None else {"priority": jnp.asarray(priority)}
    reward = obs[:-1]
    ones = jnp.ones_like(reward)
    return Trajectory(TimeStep(obs, ended, ended), reward, reward, ones, extras, ())


def filled(buffer, *trajectories):
    data = buffer.init(jax.eval_shape(lambda: trajectories[0]))
    for one in trajectories:
        data = buffer.add(data, (), one)
    return data


def sample(buffer, data, key=KEY, axis=Axis()):
    return buffer.sample(data, unroll([0.0]), key, axis)


def learned(buffer, data, priority_of, key=KEY):
    """After one batch, whose windows get the priorities of their rewards."""
    batch, drawn = sample(buffer, data, key)
    errors = jnp.asarray([priority_of[float(x)] for x in batch.reward[0]])
    return buffer.update(data, drawn, Info({}, errors), Axis())


def probabilities(data):
    masses = np.asarray(data.tree.masses, np.float64)
    return masses / masses.sum()


def test_probabilities_and_weights_are_the_papers():
    """Priorities 1, 2, 3, 4, alpha 0.6, beta 0.4."""
    buffer = prioritised(4, 4000, ONE, PriorityConfig(eps=0.0))
    data = learned(buffer, filled(buffer, unroll(range(4))), {0: 1, 1: 2, 2: 3, 3: 4})
    expected = [0.14823, 0.224674, 0.286555, 0.340542]
    np.testing.assert_allclose(probabilities(data)[:4], expected, rtol=1e-5)
    batch, _ = sample(buffer, data, random.key(1))
    counts = np.bincount(np.asarray(batch.reward[0], int))
    np.testing.assert_allclose(counts / 4000, expected, atol=1e-3)
    numbers = np.asarray(batch.reward[0], int)
    expected = np.array([1.0, 0.846745, 0.768229, 0.716978])[numbers]
    np.testing.assert_allclose(batch.extras["weight"][0], expected, rtol=1e-5)


@pytest.mark.slow
def test_a_newcomer_has_the_largest_priority_and_alpha_comes_once():
    config = PriorityConfig(alpha=0.5, eps=0.0)
    buffer = prioritised(3, 64, ONE, config)
    data = filled(buffer, unroll([0.0]), unroll([1.0]))
    data = learned(buffer, data, {0: 4.0, 1: 1.0})
    data = buffer.add(data, (), unroll([2.0]))
    np.testing.assert_allclose(probabilities(data)[:3], [0.4, 0.2, 0.4], rtol=1e-6)
    # It does not fall when what had it has left.
    data = buffer.add(data, (), unroll([3.0]))
    assert float(data.largest) == 4.0


@pytest.mark.slow
def test_eps_is_within_the_power():
    buffer = prioritised(1, 1, ONE, PriorityConfig(alpha=0.6, eps=1e-6))
    data = learned(buffer, filled(buffer, unroll([0.0])), {0: 0.0})
    np.testing.assert_allclose(data.tree.total, 2.51e-4, rtol=1e-2)


@pytest.mark.slow
def test_only_what_is_there_is_drawn_full_or_not():
    buffer = prioritised(4, 400, ONE)
    data = buffer.init(jax.eval_shape(lambda: unroll([0.0])))
    for number in range(9):
        data = buffer.add(data, (), unroll([float(number)]))
        batch, _ = sample(buffer, data)
        kept = range(max(0, number - 3), number + 1)
        expected = {float(x): 400 / len(kept) for x in kept}
        values, counts = np.unique(np.asarray(batch.reward[0]), return_counts=True)
        assert set(values.tolist()) == expected.keys()
        np.testing.assert_allclose(counts, list(expected.values()), atol=1.5)


@pytest.mark.sample(2)
@pytest.mark.parametrize(("adds", "survivors"), [(0, 4), (2, 2), (4, 0), (5, 0)])
def test_no_priority_reaches_what_has_taken_its_place(adds, survivors):
    """One lap around the ring looks as if nothing had changed, to who sees slots."""
    buffer = prioritised(4, 4, ONE, EXACT)
    data = filled(buffer, *(unroll([float(x)]) for x in range(4)))
    _, drawn = sample(buffer, data)  # each of them, once
    for number in range(adds):
        data = buffer.add(data, (), unroll([10.0 + number]))
    data = buffer.update(data, drawn, Info({}, jnp.full(4, 7.0)), Axis())
    assert int(jnp.sum(data.tree.masses == 7.0)) == survivors
    assert int(jnp.sum(data.tree.masses == 1.0)) == 4 - survivors


def test_a_priority_that_is_no_number_is_not_taken():
    buffer = prioritised(4, 4, ONE, EXACT)
    data = filled(buffer, unroll(range(4)))
    batch, drawn = sample(buffer, data)
    given = jnp.where(batch.reward[0] == 1.0, jnp.nan, 3.0)
    given = jnp.where(batch.reward[0] == 2.0, jnp.inf, given)
    data = buffer.update(data, drawn, Info({}, given), Axis())
    np.testing.assert_array_equal(data.tree.masses[:4], [3, 1, 1, 3])
    assert float(data.largest) == 3.0


def test_what_was_recorded_is_the_first_priority_of_each_window():
    config = PriorityConfig(alpha=1.0, eps=0.0, first="recorded")
    buffer = prioritised(2, 1, Windows(2), config)
    given = jnp.array([[1.0, jnp.nan], [-3.0, 2.0], [0.5, 9.0], [0.5, 0.25]])
    # A window whose trained rows are all `last` is no transition at all.
    data = filled(buffer, unroll([0.0, 1.0], 4, given, last=[2]))
    expected = [0.9 * 3 + 0.1 * 2, 0.5, 1.0, 0.25]
    np.testing.assert_allclose(data.tree.masses[:4], expected, rtol=1e-6)
    with pytest.raises(ValueError, match='extras\\["priority"\\] is not among \\[\\]'):
        filled(buffer, unroll([0.0, 1.0], 4))


@pytest.mark.slow
def test_rows_that_are_last_are_never_drawn():
    buffer = prioritised(2, 500, ONE)
    data = filled(buffer, unroll([0.0, 1.0], 4, last=[1, 3]))
    batch, _ = sample(buffer, data)
    assert not np.any(batch.steps.last[0])
    assert set((np.asarray(batch.reward[0]) * 16 % 16).tolist()) == {0.0, 2.0}


@pytest.mark.slow
def test_ranks_decide_where_they_are_asked_for():
    """Equal priorities rank by their slots."""
    config = PriorityConfig("rank", alpha=1.0)
    buffer = prioritised(5, 200, ONE, config)
    data = filled(buffer, unroll([0.0]), unroll([1.0]), unroll([2.0]))
    data = learned(buffer, data, {0: 0.1, 1: 5.0, 2: 0.1})
    data = buffer.add(data, (), unroll([3.0]))
    # 5.0 of slot 1 and the newcomer's, then both of 0.1.
    expected = np.array([1 / 3, 1, 1 / 4, 1 / 2, 0])
    np.testing.assert_allclose(data.tree.masses[:5], expected, rtol=1e-6)


def test_beta_rises_with_updates_that_were_applied():
    config = PriorityConfig(alpha=1.0, eps=0.0, beta=0.0, beta_updates=2)
    buffer = prioritised(4, 4, ONE, config, min_size=4)
    data = filled(buffer, unroll([0.0]), unroll([1.0]))
    weights = []
    for number in range(2, 6):
        data = learned(buffer, data, dict.fromkeys(range(4), 1.0) | {1: 4.0})
        if number < 4:
            assert int(data.updates) == 0
            data = buffer.add(data, (), unroll([float(number)]))
        else:
            batch, _ = sample(buffer, data)
            weights.append(float(batch.extras["weight"].min()))
    np.testing.assert_allclose(weights, [0.25**0.5, 0.25])


def on_devices(num_devices, function, *args):
    """`function(axis, *args)` on a mesh; leaves of args and results are joined."""
    axis, mesh = Axis("data"), data_mesh(num_devices)
    run = jax.shard_map(
        partial(function, axis), mesh=mesh, in_specs=P("data"), out_specs=P("data"),
        check_vma=False,
    )  # fmt: skip
    return jax.jit(run)(*args)


def test_draws_and_weights_on_a_mesh_are_those_of_all_shares_together():
    """Masses 4, 4 and 1, 1 of two devices: 0.8 of all windows come from the first."""
    buffer = prioritised(2, 500, ONE, PriorityConfig(alpha=1.0, eps=0.0, beta=1.0))

    def one(axis, number):
        data = filled(buffer, unroll(2 * number[0] + jnp.arange(2.0)))
        first = jnp.where(number[0] == 0, 4.0, 1.0)
        data = data._replace(tree=jax.tree.map(lambda x: x * first, data.tree))
        batch, _ = sample(buffer, data, KEY, axis)
        return batch.reward[0], batch.extras["weight"][0], batch.steps.obs[1]

    reward, weight, after = on_devices(2, one, jnp.arange(2.0))
    counts = np.bincount(np.asarray(reward, int), minlength=4)
    np.testing.assert_allclose(counts, [400, 400, 100, 100], atol=1)
    np.testing.assert_array_equal(weight, np.where(reward < 2, 0.25, 1.0))
    np.testing.assert_array_equal(after, reward + 1 / 16)


@pytest.mark.slow
def test_windows_travel_between_devices_bit_for_bit():
    """Also what a sum of numbers would change: -0, not-a-number, the largest ones."""
    buffer = prioritised(2, 8, ONE)
    odd = jnp.array([-0.0, jnp.nan, 3.4e38, 1e-45])

    def with_extras(number):
        lanes = unroll(2 * number + jnp.arange(2.0))
        index = (2 * number + jnp.arange(2)).astype(jnp.int32)[None]
        extras = {
            "float": odd[index], "half": odd[index].astype(jnp.bfloat16),
            "byte": (index + 252).astype(jnp.uint8), "flag": index % 2 == 1,
            "pair": jnp.stack([index, -index], axis=-1),
        }  # fmt: skip
        return lanes._replace(extras=extras)

    def one(axis, number):
        batch, _ = sample(buffer, filled(buffer, with_extras(number[0])), KEY, axis)
        return jax.tree.map(lambda x: x[0], (batch.reward, batch.extras))

    reward, extras = on_devices(2, one, jnp.arange(2.0))
    index = np.asarray(reward, int)
    assert sorted(index.tolist()) == sorted(list(range(4)) * 4)
    both = jax.tree.map(lambda x, y: jnp.concatenate([x[0], y[0]]),
                        with_extras(0.0).extras, with_extras(1.0).extras)  # fmt: skip
    for name, whole in both.items():
        found, expected = np.asarray(extras[name]), np.asarray(whole)[index]
        assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes()


@pytest.mark.slow
def test_on_a_mesh_priorities_go_back_to_who_has_the_window():
    buffer = prioritised(4, 4, ONE, EXACT)

    def one(axis, number):
        data = filled(buffer, unroll(4 * number[0] + jnp.arange(4.0)))
        batch, drawn = sample(buffer, data, KEY, axis)
        info = Info({}, 10.0 + batch.reward[0])
        data = buffer.update(data, drawn, info, axis)
        return data.tree.masses[:4], data.tree.total[None]

    masses, totals = on_devices(2, one, jnp.arange(2.0))
    np.testing.assert_array_equal(masses, 10.0 + np.arange(8))
    np.testing.assert_array_equal(totals, [46.0, 62.0])


@pytest.mark.slow
def test_one_device_of_a_mesh_draws_what_a_program_alone_draws():
    buffer = prioritised(4, 7, ONE)
    alone, _ = sample(buffer, filled(buffer, unroll(range(4))))

    def one(axis, number):
        batch, _ = sample(buffer, filled(buffer, unroll(range(4))), KEY, axis)
        return batch.reward[0]

    np.testing.assert_array_equal(on_devices(1, one, jnp.zeros(1)), alone.reward[0])


def test_an_agent_without_priorities_is_refused():
    buffer = prioritised(4, 4, ONE)
    data = filled(buffer, unroll(range(4)))
    _, drawn = sample(buffer, data)
    with pytest.raises(ValueError, match=r"needs Info\.priorities"):
        buffer.update(data, drawn, Info({}), Axis())
