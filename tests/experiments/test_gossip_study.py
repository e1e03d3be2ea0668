"""Simulated time: who waits for whom, and when a return is reached."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxrl_par.loops import schedules
from jaxrl_par.loops.matchings import matchings

PATH = Path(__file__).parent.parent.parent / "experiments" / "gossip_study.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("gossip_study", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def args(study):
    return study.Args(num_learners=4, num_seeds=2, num_updates=30)


def test_an_all_reduce_waits_for_the_slowest_and_for_a_tree(study, args):
    times = study.waiting_times("all-reduce", args, args.compute(4.0), delay=10.0)
    # 20 ms of the slowest, and twice two messages.
    assert times.shape == (2, 30, 4)
    np.testing.assert_allclose(times[1, :, 3], 60.0 * np.arange(1, 31))


@pytest.mark.slow
def test_partners_wait_for_each_other_and_one_message(study, args):
    times = study.waiting_times("together", args, args.compute(4.0), delay=1.0)
    table = matchings(4)
    for seed, ours in enumerate(times):
        before, chosen = np.zeros(4), study.matchings_of(args, seed)
        assert set(chosen) == {0, 1, 2}
        for number, now in zip(chosen, ours, strict=True):
            for i, j in enumerate(table[number]):
                own = [before[k] + (20.0 if k == 0 else 5.0) for k in (i, j)]
                assert now[i] == max(own) + 1.0
            before = now
    assert (study.matchings_of(args, 0) != study.matchings_of(args, 1)).any()
    odd = replace(args, num_learners=3)
    rests = study.waiting_times("together", odd, odd.compute(1.0), delay=1.0)
    assert (rests[0, 0] == 5.0).sum() == 1  # for no message


def test_at_its_own_pace_nobody_waits(study):
    busy = np.array([20.0, 5.0])
    schedule = schedules.simulated(schedules.steady(15, 1 / busy))
    times = study.own_times(schedule.worker, busy)
    assert (np.diff(times) >= 0).all()
    for who, took in enumerate(busy):
        own = times[schedule.worker == who]
        np.testing.assert_allclose(own, took * np.arange(1, len(own) + 1))


def test_a_return_is_reached_by_the_last_episodes_in_the_order_of_time(study):
    times = np.array([[3000.0, 1000.0], [4000.0, 2000.0]])
    counts = np.full((2, 2), 50.0)
    totals = 50 * np.array([[8.0, 0.0], [8.0, 4.0]])
    episodes = times, totals, counts
    # After 2 s the mean is 2, after 3 s that of 4 and 8, after 4 s it is 8.
    found = [study.seconds_to(x, *episodes) for x in (2.0, 5.0, 7.0, 9.0)]
    assert found == [2.0, 3.0, 4.0, None]
