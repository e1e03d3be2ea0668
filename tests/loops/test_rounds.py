"""Who is in time for an update, with the numbers of trap F9."""

import numpy as np
import pytest

from jaxrl_par.errors import RefusedError
from jaxrl_par.loops import schedules
from jaxrl_par.loops.records import Entry, RecordError
from jaxrl_par.loops.rounds import (
    DROPPED,
    LEARNED,
    NOTHING,
    Rounds,
    problems,
    recorded,
    simulated,
)

# Two workers need a second for an unroll, two need three.
F9 = np.broadcast_to(np.array([1.0, 1.0, 3.0, 3.0]), (100, 4))
RETURN = np.array([1, 1, 5, 5])


def counted(rounds, until=30.0):
    """By worker, unrolls until then that were learned from, and that were dropped."""
    there = rounds.time[:, None] <= until
    kinds = [there & (rounds.kind == kind) for kind in (LEARNED, DROPPED)]
    return [np.bincount(rounds.worker[x], minlength=4).tolist() for x in kinds]


@pytest.mark.parametrize(
    ("max_lag", "learned", "dropped", "mean"),
    [
        (0, [30, 30, 0, 0], [0, 0, 10, 10], 1),
        (1, [30, 30, 0, 0], [0, 0, 10, 10], 1),
        (2, [30, 30, 10, 10], [0, 0, 0, 0], 2),
        (None, [30, 30, 10, 10], [0, 0, 0, 0], 2),
    ],
)
def test_a_bound_starves_the_slow_as_f9_says(max_lag, learned, dropped, mean):
    found = counted(simulated(F9, 2, 0, max_lag))
    assert found == [learned, dropped]
    assert np.average(RETURN, weights=found[0]) == mean


def test_all_in_every_update_are_lockstep():
    """An update in three seconds, with as many of each: the mean is 3."""
    for lag in (0, 2):
        rounds = simulated(F9, 4, lag)
        np.testing.assert_array_equal(rounds.worker, np.tile(np.arange(4), (100, 1)))
        assert np.all(rounds.kind == LEARNED)
        delays = np.minimum(np.arange(100), lag)
        np.testing.assert_array_equal(rounds.delay, delays[:, None].repeat(4, axis=1))
        np.testing.assert_allclose(rounds.time, 3.0 * np.arange(1, 101))
        assert np.average(RETURN, weights=counted(rounds)[0]) == 3


def test_lockstep_waits_for_whoever_is_slowest_this_time():
    durations = np.array([[1.0, 4.0], [4.0, 1.0], [1.0, 1.0]])
    # Without lag all begin at once; with one, whoever has finished goes on.
    np.testing.assert_allclose(simulated(durations, 2, 0).time, [4, 8, 9])
    np.testing.assert_allclose(simulated(durations, 2, 1).time, [4, 5, 6])


def slowly(rounds, durations, quorum, lag, max_lag):
    """Checks all rules of a simulation by looking at each update alone."""
    version_of, seen = {}, {}
    for number in range(len(rounds.time)):
        kinds = rounds.kind[number]
        assert np.sum(kinds == LEARNED) == quorum
        versions = []
        for place in np.flatnonzero(kinds != NOTHING):
            worker = int(rounds.worker[number, place])
            version = number - int(rounds.delay[number, place])
            unroll = seen.get(worker, 0)
            seen[worker] = unroll + 1
            # Parameters only become newer.
            assert version >= version_of.get(worker, 0)
            version_of[worker] = version
            began = rounds.time[version - 1] if version else 0.0
            assert began + durations[unroll, worker] <= rounds.time[number] + 1e-9
            if kinds[place] == LEARNED:
                versions.append(version)
                assert max_lag is None or number - version <= max_lag
        assert versions == sorted(versions)  # oldest first


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("max_lag", [None, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_rounds_keep_their_rules(lag, max_lag, seed):
    durations = schedules.heavy_tailed(60, 5, seed, tail=1.5)
    rounds = simulated(durations, 3, lag, max_lag)
    assert not problems(rounds, 5)
    slowly(rounds, durations, 3, lag, max_lag)
    assert np.all(np.diff(rounds.time) >= 0)
    assert np.any(rounds.kind == DROPPED) == (max_lag is not None)


def test_a_quorum_is_sooner_than_all():
    durations = schedules.heavy_tailed(200, 10, 0, tail=1.5)
    ends = [simulated(durations, quorum).time[-1] for quorum in (10, 8, 6)]
    assert ends == sorted(ends, reverse=True) and ends[0] > 2 * ends[2]


RECORD = [
    [Entry(0, 0, 0, 0), Entry(1, 0, 0, 0)],
    [Entry(0, 1, 0, 1), Entry(1, 1, 0, 1), Entry(2, 0, 0, 0, dropped=1)],
]


def test_a_record_has_its_rounds():
    rounds = recorded(RECORD, 3, 2)
    # What was dropped comes first: its worker acted it before what is learned from.
    assert rounds.worker.tolist() == [[0, 1, 0], [2, 0, 1]]
    assert rounds.delay.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert rounds.kind.tolist() == [
        [LEARNED, LEARNED, NOTHING],
        [DROPPED, LEARNED, LEARNED],
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (Entry(3, 0, 0, 0), "is of actor 3, and there are 3"),
        (Entry(0, 1, 1, 0), "never made anew"),
        (Entry(0, 2, 0, 0), "has unroll 2 of actor 0"),
        (Entry(0, 1, 0, 0, 0, ((0, 2), (1, 3))), "each with one version"),
        (Entry(0, 1, 0, 0, dropped=1), "learned from 0 unrolls, and the quorum is 2"),
    ],
)
def test_a_record_of_something_else_is_refused(entry, said):
    with pytest.raises(RecordError, match=f"update 1 of the record.*{said}"):
        recorded([RECORD[0], [entry]], 3, 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quorum": 0}, "quorum must be at least 1, got 0"),
        ({"quorum": 5}, "quorum must be at most 4, got 5"),
        ({"quorum": 2, "lag": -1}, "lag must be at least 0"),
        ({"quorum": 2, "max_lag": -1}, "max_lag must be at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, said):
    with pytest.raises(RefusedError, match=said):
        simulated(F9, **options)


def test_rounds_that_do_not_fit_are_found():
    right = simulated(F9, 2)
    assert problems(right, 4) == []
    assert "workers must be in 0 .. 1, got 3" in problems(right, 2)[0]
    early = right._replace(delay=right.delay + 1)
    assert "not from before the start" in problems(early, 4)[0]
    uneven = right._replace(kind=np.where(right.worker == 2, DROPPED, right.kind))
    assert "equally many" in problems(uneven, 4)[0]
    assert "three arrays" in problems(Rounds(*[np.zeros(3, np.int32)] * 4), 4)[0]
