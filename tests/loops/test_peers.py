"""What moves of learners' states, and that nothing of it is lost or counted twice."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from nearness import assert_near

from jaxrl_par.agents import TrainState
from jaxrl_par.algorithms.normalize import Normalized
from jaxrl_par.loops.peers import (
    learned_meanwhile,
    mean_state,
    moved,
    shared,
    with_shared,
)
from jaxrl_par.statistics import Moments


class State(NamedTuple):
    params: dict
    target: jax.Array
    opt_state: tuple
    age: jax.Array


STATE = State(
    {"w": jnp.ones(2)}, jnp.zeros(3), (jnp.full(2, 5.0), jnp.int32(7)), jnp.int32(3)
)


def moments_of(rows):
    rows = np.asarray(rows, np.float64)
    parts = len(rows), rows.mean(axis=0), rows.var(axis=0)
    return Moments(*(jnp.asarray(x, jnp.float32) for x in parts))


def test_parameters_move_and_the_optimizer_and_counters_do_not():
    assert [x.shape for x in shared(STATE)] == [(2,), (3,)]
    new = with_shared(STATE, [x + 1 for x in shared(STATE)])
    assert new.params["w"].tolist() == [2, 2] and new.target.tolist() == [1, 1, 1]
    assert new.opt_state[0].tolist() == [5, 5] and int(new.age) == 3


def test_the_optimizer_moves_where_that_is_asked_for():
    assert [x.shape for x in shared(STATE, optimizer=True)] == [(2,), (3,), (2,)]
    new = with_shared(STATE, [x + 1 for x in shared(STATE, True)], optimizer=True)
    assert new.opt_state[0].tolist() == [6, 6] and int(new.opt_state[1]) == 7


def test_an_average_adds_half_of_the_difference_that_was_read():
    """And keeps what A has learned since: -1."""
    read_a, read_b, now_a, now_b = ([jnp.float32(x)] for x in (0, 8, -1, 8))
    (a,) = moved(now_a, (0.5, read_b, read_a))
    (b,) = moved(now_b, (0.5, read_a, read_b))
    assert (float(a), float(b)) == (3.0, 4.0)


def test_what_was_learned_meanwhile_is_added():
    read, learned, now = ([jnp.array(x)] for x in ([1.0, 2.0], [1.5, 1.0], [4.0, 4.0]))
    (new,) = learned_meanwhile(now, learned, read)
    assert new.tolist() == [4.5, 3.0]


def test_where_nothing_came_between_it_is_what_was_learned_bit_for_bit():
    read, learned = [jnp.float32(1e8)], [jnp.float32(0.1)]
    (new,) = learned_meanwhile(read, learned, read)
    assert float(new) == float(np.float32(0.1))
    assert float(moved(read, (1.0, learned, read))[0]) != float(np.float32(0.1))


def test_statistics_move_as_counts_and_sums():
    """Each row counts as often as before, in one learner or in both."""
    draw = np.random.default_rng(0)
    a, b = draw.normal(300.0, 1.0, (40, 2)), draw.normal(302.0, 3.0, (8, 2))
    ours, theirs = moments_of(a), moments_of(b)
    (first,) = moved([ours], (0.5, [theirs], [ours]))
    (second,) = moved([theirs], (0.5, [ours], [theirs]))
    # Half of the rows of both.
    both = moments_of(np.concatenate([a, b]))._replace(count=jnp.float32(24))
    assert_near(first, both, 1e-5)
    assert_near(second, both, 1e-5)


def test_statistics_of_new_rows_are_added_to_what_came_meanwhile():
    draw = np.random.default_rng(1)
    old, new, came = (draw.normal(m, 1.0, (n, 1)) for m, n in ((5, 9), (6, 4), (2, 7)))
    read, learned = moments_of(old), moments_of(np.concatenate([old, new]))
    now = moments_of(np.concatenate([old, came]))
    (found,) = learned_meanwhile([now], [learned], [read])
    assert_near(found, moments_of(np.concatenate([old, came, new])), 1e-5)


def test_rows_that_two_knew_before_count_once():
    """TRAP F13: both knew 1 and 2; one sees 3, and the other's 10 came meanwhile."""
    rows = [[1], [2]], [[1], [2], [3]], [[1], [2], [10]]
    read, learned, now = map(moments_of, rows)
    (found,) = learned_meanwhile([now], [learned], [read])
    assert_near(found, moments_of([[1], [2], [3], [10]]), 1e-6)
    np.testing.assert_allclose(
        [found.count, *found.mean, *found.variance], [4, 4, 12.5]
    )


def test_statistics_of_nothing_stay():
    nothing = Moments(jnp.float32(0), jnp.zeros(2), jnp.ones(2))
    (found,) = moved([nothing], (0.5, [nothing], [nothing]))
    assert_near(found, nothing)


def test_the_mean_state_has_the_mean_of_parameters_and_the_first_ones_optimizer():
    rows = [np.full((4, 1), 1.0), np.full((12, 1), 5.0)]
    states = [
        Normalized(TrainState(jnp.float32(x), jnp.float32(x)), moments_of(y))
        for x, y in zip((2.0, 6.0), rows, strict=True)
    ]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    mean = mean_state(stacked)
    assert (float(mean.inner.params), float(mean.inner.opt_state)) == (4.0, 2.0)
    together = moments_of(np.concatenate(rows))._replace(count=jnp.float32(8))
    assert_near(mean.statistics, together)
