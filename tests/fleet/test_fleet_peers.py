"""Who waits for whom among learners in processes, with processes that are none."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from jaxrl_par.fleet import learners, peers
from jaxrl_par.fleet.peers import Known, Mail, PeerProcess
from jaxrl_par.types import Mean


class RayError(Exception):
    """In place of that of Ray."""


class Calls:
    """Ray, where a call is made at once, and who was killed does not answer."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self):
        self.there = {}

    def get_actor(self, name):
        if name not in self.there:
            raise ValueError(name)
        return Asked(self, name)

    def wait(self, calls, timeout):
        return [x for x in calls if x is not SILENT], []

    def get(self, call):
        if isinstance(call, RayError):
            raise call
        return call


SILENT = object()


class Asked:
    def __init__(self, calls, name):
        self._calls, self._name = calls, name

    def __getattr__(self, method):
        def remote(*arguments):
            process = self._calls.there.get(self._name, RayError(f"{self._name} died"))
            if process is SILENT or isinstance(process, RayError):
                return process
            return getattr(process, method)(*arguments)

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=remote))


@pytest.fixture
def world(monkeypatch):
    """Three learners, each of which knows the others."""
    calls = Calls()
    monkeypatch.setattr(peers, "ray", calls)
    monkeypatch.setattr(peers, "_ASKED_AGAIN", 1e-3)
    monkeypatch.setattr("jaxrl_par.fleet.process.end_with_parent", lambda: None)
    names = ("a", "b", "c")
    for i, name in enumerate(names):
        process = PeerProcess(name)
        process._known = Known(names, i, 0.05)
        calls.there[name] = process
    return calls


def parts(x):
    return [np.float32(x)]


def exchanged(process, round_, others, x):
    found = process._exchanged(round_, others, parts(x))
    return [None if y is None else float(y[0]) for y in found]


def test_two_have_what_the_other_has_whoever_is_first(world):
    a, b = world.there["a"], world.there["b"]
    found = []
    waiting = threading.Thread(target=lambda: found.extend(exchanged(a, 1, (1,), 10.0)))
    waiting.start()
    found += exchanged(b, 1, (0,), 20.0)
    waiting.join(30)
    assert sorted(found) == [10.0, 20.0]


def test_what_comes_early_waits_for_its_round(world):
    """Who is ahead in other rounds leaves what it has."""
    a, b, c = world.there.values()
    c.give(3, 0, parts(7.0))
    c.give(1, 1, parts(5.0))
    b.give(1, 2, parts(0.0))
    assert exchanged(c, 1, (1,), 1.0) == [5.0]
    assert exchanged(c, 3, (0,), 1.0) == [7.0]
    assert a._mail.take(1, 2, 0.0) is None


def test_both_neighbours_of_a_ring_of_two_are_one(world):
    """TRAP F3: it is asked once, and read twice."""
    a, b = world.there["a"], world.there["b"]
    a.give(1, 1, parts(6.0))
    assert exchanged(a, 1, (1, 1), 3.0) == [6.0, 6.0]
    assert [float(x[0]) for x in b._mail._sent.values()] == [3.0]


@pytest.mark.parametrize("how", ["gone", "died", "silent"])
def test_one_that_is_lost_is_missed_in_this_round_and_all_later_ones(world, how):
    a = world.there["a"]
    if how == "gone":
        del world.there["b"]
    else:
        world.there["b"] = SILENT if how == "silent" else RayError("it died")
    assert exchanged(a, 1, (1,), 3.0) == [None]
    assert a._lost == {1}
    assert exchanged(a, 2, (1,), 3.0) == [None]
    # Others are waited for as before.
    a.give(3, 2, parts(4.0))
    assert exchanged(a, 3, (2, 1), 3.0) == [4.0, None]


def test_who_is_given_up_hears_of_it_and_waits_no_longer(world):
    """Else one of two that lost sight of each other would wait for ever."""
    a, b = world.there["a"], world.there["b"]
    b._lost = {0}
    assert exchanged(a, 1, (1,), 3.0) == [None]
    assert not b._mail._sent


def test_what_the_lost_had_sent_before_is_used(world):
    a = world.there["a"]
    a.give(1, 1, parts(8.0))
    world.there["b"] = RayError("it died")
    assert exchanged(a, 1, (1,), 3.0) == [8.0]
    assert exchanged(a, 2, (1,), 3.0) == [None]


def test_mail_is_taken_once():
    mail = Mail()
    mail.put(1, 0, "x")
    assert mail.take(1, 0, 0.0) == "x" and mail.take(1, 0, 0.0) is None


def test_one_that_is_lost_counts_nothing_and_has_no_numbers():
    """A list of numbers for each learner would else say something of it."""
    one = {"return": Mean(np.float32(6), np.float32(2)), "norm": np.float32(3)}
    one |= {"skipped": np.int32(1)}
    found = learners._metrics([[one, one], None])
    assert found["return"].total.tolist() == [[6, 0], [6, 0]]
    assert found["return"].count.tolist() == [[2, 0], [2, 0]]
    np.testing.assert_array_equal(found["norm"], [[3, np.nan]] * 2)
    assert found["skipped"].tolist() == [[1, 0], [1, 0]]
