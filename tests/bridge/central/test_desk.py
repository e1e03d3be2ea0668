"""Who acts answers in batches: as many as there are, or those who came in time."""

import time

import numpy as np
import pytest

from jaxrl_par.bridge.central.config import CentralConfig
from jaxrl_par.bridge.central.desk import Batches, ThreadedDesk, _Waiting
from jaxrl_par.bridge.central.place import Answer, Ended, Place, Request
from jaxrl_par.bridge.supervision import DeadlineError, Supervisor
from jaxrl_par.errors import problems

LONG_AGO = time.perf_counter() - 10_000
FOR_EVER = 1e6


class Told(Place):
    """Answers with the version, and notes who was in a call."""

    def __init__(self, slots=2):
        self.slots = slots
        self.calls = []

    def answer(self, requests, version, params):
        self.calls.append([x.actor for x in requests])
        return [Answer(np.zeros(1), version) for _ in requests]


def desk(slots=2, max_wait_ms=FOR_EVER, patience=30.0):
    config = CentralConfig(max_batch=slots, max_wait_ms=max_wait_ms)
    return ThreadedDesk(Supervisor(patience), Told(slots), config)


def request(actor, version=None):
    return Request(actor, 0, 0, 0, np.zeros(1), version)  # pyright: ignore


def waiting(where, *asked, since=None):
    now = time.perf_counter() if since is None else since
    where._waiting.extend(_Waiting(x, now) for x in asked)


def taken(where):
    """Actors of what is answered next."""
    return [x.asked.actor for x in where._take()]


def test_a_full_batch_does_not_wait():
    where = desk(slots=3)
    waiting(where, request(0), request(1), request(2))
    assert taken(where) == [0, 1, 2] and not where._waiting


def test_a_batch_that_is_not_full_goes_when_its_first_has_waited():
    where = desk(slots=3, max_wait_ms=1000.0)
    waiting(where, request(1), since=LONG_AGO)
    waiting(where, request(0))
    assert taken(where) == [1, 0]


def test_those_who_came_first_are_answered_first():
    """Four actors whose requests are always ready have a share each."""
    where, turns = desk(slots=1), []
    waiting(where, *(request(actor) for actor in range(4)))
    for _ in range(100):
        (actor,) = taken(where)
        turns.append(actor)
        waiting(where, request(actor))
    assert [turns.count(actor) for actor in range(4)] == [25] * 4


def test_actors_of_one_slot_go_one_after_the_other():
    where = desk(slots=2, max_wait_ms=0.0)
    waiting(where, request(0), request(2), request(1))
    assert taken(where) == [0, 1]
    assert taken(where) == [2]


def test_a_call_is_of_one_version():
    where = desk(slots=3, max_wait_ms=0.0)
    waiting(where, request(0, 5), request(1, 6), request(2, 5))
    assert taken(where) == [0, 2]
    assert taken(where) == [1]


def test_an_unroll_that_ended_waits_for_no_batch():
    where = desk(slots=2)
    waiting(where, request(0), Ended(1, 0, 0, None))  # pyright: ignore
    assert taken(where) == [1]
    assert len(where._waiting) == 1


def test_who_asks_gets_the_answer_and_it_is_counted():
    where = desk(slots=2, max_wait_ms=0.0)
    where._supervisor.start("acts", lambda: where.serve(lambda asked: (asked, None)))
    assert where.ask(request(0, 3)).version == 3
    assert where.ask(request(1, 4)).version == 4
    where._supervisor.stop(5.0)
    assert where._place.calls == [[0], [1]]
    batches = where.batches()
    assert (batches.calls, batches.steps, batches.fill) == (2, 2, 0.5)
    assert 0 < batches.longest <= batches.waited


def test_an_answer_that_does_not_come_is_an_error():
    where, late = desk(patience=0.2), "no answer of the thread that acts"
    with where._supervisor.working(), pytest.raises(DeadlineError, match=late):
        where.ask(request(0))


def test_batches_are_told_in_numbers():
    batches = Batches({}, calls=4, steps=6, slots=2, waited=0.3, longest=0.2)
    assert batches.numbers() == pytest.approx(
        {
            "inference_batch": 1.5,
            "inference_fill": 0.75,
            "inference_wait_ms": 50.0,
            "inference_wait_ms_max": 200.0,
        }
    )
    assert batches.told() == (
        "1.5 of 2 actors on average (75% full); a step waited 50.00 ms, at most 200"
    )
    assert Batches({}, 0, 0, 2, 0.0, 0.0).mean_wait_ms == 0.0


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (CentralConfig(max_batch=0), "max_batch must be at least 1, got 0"),
        (CentralConfig(max_wait_ms=-1.0), "max_wait_ms must be at least 0, got -1.0"),
        (CentralConfig(max_wait_ms=float("nan")), "max_wait_ms must be"),
    ],
)
def test_what_is_out_of_range_is_said(config, found):
    (line,) = problems(config)
    assert found in line
