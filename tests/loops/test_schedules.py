"""Schedules are what would happen: events in the order of time, and who read when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_par.loops import schedules
from jaxrl_par.loops.schedules import Schedule


def assert_same(actual, expected):
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(x, y)


def turns(worker, delay):
    return Schedule(np.array(worker, np.int32), np.array(delay, np.int32))


# Orders that are given -----------------------------------------------------------


def test_workers_in_turn_read_a_constant_number_of_turns_before():
    schedule = schedules.in_turn(3, 7, delay=2)
    assert_same(schedule, turns([0, 1, 2, 0, 1, 2, 0], [0, 1, 2, 2, 2, 2, 2]))
    assert_same(schedules.in_turn(2, 3), turns([0, 1, 0], [0, 0, 0]))
    assert schedule.worker.dtype == schedule.delay.dtype == np.int32


def test_a_delay_may_be_traced():
    delays = jax.vmap(lambda d: schedules.in_turn(3, 7, d).delay)(jnp.arange(4))
    for delay in range(4):
        np.testing.assert_array_equal(
            delays[delay], schedules.in_turn(3, 7, delay).delay
        )


def test_workers_together_read_the_same_parameters():
    schedule = schedules.together(3, 8)
    assert_same(schedule, turns([0, 1, 2] * 2 + [0, 1], [0, 1, 2] * 2 + [0, 1]))
    read = np.arange(8) - schedule.delay
    np.testing.assert_array_equal(read, [0, 0, 0, 3, 3, 3, 6, 6])


# Workers that never wait ---------------------------------------------------------


def sorted_events(durations):
    """As `simulated`, from a list of everything that ends, sorted by time."""
    num_turns, num_workers = durations.shape
    ends = np.cumsum(durations, axis=0)
    events = sorted(
        (ends[n, w], w) for n in range(num_turns) for w in range(num_workers)
    )
    worker = np.array([w for _, w in events[:num_turns]])
    delay = []
    for turn, w in enumerate(worker):
        mine = np.flatnonzero(worker[:turn] == w)
        others = turn - (mine[-1] + 1 if len(mine) else 0)
        delay.append(others)
    return turns(worker, delay)


DURATIONS = {
    "one": schedules.exponential(20, 1, seed=0),
    "equal": schedules.steady(40, np.ones(4)),
    "unequal": schedules.steady(200, np.array([1.0, 2.0, 0.5, 5.0])),
    "exponential": schedules.exponential(300, 5, seed=1),
    "heavy-tailed": schedules.heavy_tailed(300, 7, seed=2, tail=1.2),
}


@pytest.mark.parametrize("name", DURATIONS)
def test_simulation_is_the_order_of_sorted_events(name):
    schedule = schedules.simulated(DURATIONS[name])
    assert_same(schedule, sorted_events(DURATIONS[name]))
    num_workers = DURATIONS[name].shape[1]
    assert (schedule.delay <= np.arange(len(schedule.delay))).all()
    assert schedules.problems(schedule, num_workers, int(schedule.delay.max())) == []
    assert schedules.own_copies(schedule)


def test_workers_of_one_speed_are_in_turn_with_a_delay_of_all_others():
    schedule = schedules.simulated(schedules.steady(23, np.full(4, 0.5)))
    assert_same(schedule, schedules.in_turn(4, 23, delay=3))


def test_a_worker_four_times_as_fast_takes_four_times_as_many_turns():
    schedule = schedules.simulated(schedules.steady(500, np.array([1.0, 4.0])))
    np.testing.assert_array_equal(np.bincount(schedule.worker), [100, 400])
    slow = schedule.worker == 0
    assert schedule.delay[slow].mean() == pytest.approx(4, abs=0.05)
    assert schedule.delay[~slow].mean() == pytest.approx(0.25, abs=0.01)


def test_steady_durations_are_inverse_speeds():
    durations = schedules.steady(3, np.array([0.5, 4.0]))
    np.testing.assert_array_equal(durations, [[2.0, 0.25]] * 3)


def test_the_delay_of_workers_without_memory_is_geometric_of_mean_all_others():
    """Whoever finishes is anybody: W - 1 others are expected before the same again."""
    schedule = schedules.simulated(schedules.exponential(20_000, 5, seed=3))
    # Variance of a geometric number: (1 - p) / p**2 = 20.
    assert schedule.delay.mean() == pytest.approx(4, abs=4 * (20 / 20_000) ** 0.5)
    shares = np.bincount(schedule.delay, minlength=3)[:3] / 20_000
    np.testing.assert_allclose(shares, 0.2 * 0.8 ** np.arange(3), atol=0.012)


def test_random_durations_have_mean_one_and_the_tail_asked_for():
    # Four standard deviations of the mean: variances are 1 and 1/3.
    exponential = schedules.exponential(5000, 4, seed=0)
    assert exponential.shape == (5000, 4)
    assert exponential.mean() == pytest.approx(1, abs=4 * (1 / 20_000) ** 0.5)
    pareto = schedules.heavy_tailed(5000, 4, seed=0, tail=3.0)
    assert pareto.shape == (5000, 4)
    assert pareto.mean() == pytest.approx(1, abs=4 * (1 / 3 / 20_000) ** 0.5)
    assert pareto.min() >= 2 / 3
    assert (pareto > 2).mean() == pytest.approx((1 / 3) ** 3, abs=0.006)
    assert (exponential > 2).mean() == pytest.approx(np.exp(-2), abs=0.01)


def test_a_seed_determines_durations():
    made = {
        "exponential": lambda seed: schedules.exponential(50, 3, seed),
        "heavy_tailed": lambda seed: schedules.heavy_tailed(50, 3, seed, 1.5),
    }
    for make in made.values():
        np.testing.assert_array_equal(make(1), make(1))
        assert (make(1) != make(2)).any()


# What does not fit ---------------------------------------------------------------


def test_each_problem_is_named():
    good = schedules.together(3, 6)
    assert schedules.problems(good, 3, 2) == []
    assert schedules.problems(good, 2, 2) == ["workers must be in 0 .. 1, got 0 .. 2"]
    assert schedules.problems(good, 3, 1) == ["delays must be in 0 .. 1, got 0 .. 2"]
    negative = turns([-1, 0], [0, -1])
    assert schedules.problems(negative, 3, 1) == [
        "workers must be in 0 .. 2, got -1 .. 0",
        "delays must be in 0 .. 1, got -1 .. 0",
    ]
    early = turns([0, 0, 0], [0, 1, 3])
    assert schedules.problems(early, 1, 3) == [
        "turn 2 has a delay of 3, from before the start"
    ]


@pytest.mark.parametrize("shapes", [((3,), (2,)), ((0,), (0,)), ((2, 2), (2, 2))])
def test_shapes_that_are_no_schedule_are_named(shapes):
    schedule = Schedule(*(np.zeros(shape, np.int32) for shape in shapes))
    (problem,) = schedules.problems(schedule, 1, 0)
    assert "two arrays [N] with N at least 1" in problem and str(shapes[1]) in problem


def test_nothing_is_said_of_traced_schedules():
    def check(delay):
        schedule = schedules.in_turn(2, 4, delay)
        assert schedules.problems(schedule, 1, 0) == []
        return delay

    jax.jit(check)(jnp.int32(5))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf, np.nan])
def test_durations_that_no_clock_shows_are_refused(bad):
    durations = np.ones((3, 2))
    durations[1, 1] = bad
    with pytest.raises(ValueError, match="durations must be finite and above 0"):
        schedules.simulated(durations)


@pytest.mark.parametrize("tail", [1.0, 0.0, np.nan])
def test_a_tail_without_a_mean_is_refused(tail):
    with pytest.raises(ValueError, match="tail must be above 1, got"):
        schedules.heavy_tailed(3, 2, seed=0, tail=tail)


def test_own_copies_are_for_workers_that_read_when_they_have_finished():
    assert schedules.own_copies(schedules.in_turn(1, 5))
    assert schedules.own_copies(schedules.in_turn(3, 7, delay=2))
    assert not schedules.own_copies(schedules.in_turn(3, 7))
    assert not schedules.own_copies(schedules.in_turn(1, 5, delay=1))
    assert not schedules.own_copies(schedules.together(2, 4))
    assert schedules.own_copies(schedules.together(2, 2))
    # Worker 1 began with what was there before turn 1, not at the start.
    assert not schedules.own_copies(turns([0, 1], [0, 0]))
