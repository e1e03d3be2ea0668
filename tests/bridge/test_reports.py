"""Shares of the time of a thread add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_par.bridge.reports import Times, mean_shares


class Clock:
    """Time that a test makes pass."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_shares_are_of_the_time_since_the_start_and_the_rest_is_other():
    clock = Clock()
    times = Times(clock)
    clock.now += 10
    times.add("acting", 2.0)
    times.add("acting", 1.0)
    times.add("environment", 5.0)
    expected = {"acting": 0.3, "environment": 0.5, "other": 0.2}
    assert times.shares() == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10))))
def test_shares_add_up_to_one(parts):
    clock = Clock()
    times = Times(clock)
    clock.now += 1.0
    for name, seconds in parts:
        clock.now += seconds
        times.add(name, seconds)
    assert sum(times.shares().values()) == pytest.approx(1.0)


def test_a_timed_call_gives_its_result_and_counts_even_if_it_fails():
    clock = Clock()
    times = Times(clock)

    def work(seconds, fail):
        clock.now += seconds
        if fail:
            raise ValueError("mine")
        return "done"

    assert times.timed("working", work, 1.0, False) == "done"
    with pytest.raises(ValueError, match="mine"):
        times.timed("failing", work, 3.0, True)
    assert times.shares() == pytest.approx(
        {"working": 0.25, "failing": 0.75, "other": 0.0}
    )


def test_shares_at_the_very_start_are_no_division_by_zero():
    assert Times(Clock()).shares() == {"other": 1.0}


def test_mean_shares_count_what_a_thread_did_not_do_as_nothing():
    shares = [{"acting": 1.0}, {"acting": 0.5, "waiting": 0.5}]
    assert mean_shares(shares) == {"acting": 0.75, "waiting": 0.25}
    assert mean_shares([]) == {}
