"""Who acts with what and what is learned next, in any order in which threads may be."""

import threading
from collections import Counter, deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_par.bridge.actor_learner.queue import (
    Bounded,
    Free,
    Lockstep,
    Publisher,
    Queue,
    Quorum,
)
from jaxrl_par.bridge.reports import Tally
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.bridge.unrolled import Episodes, Unrolled
from jaxrl_par.types import Trajectory

LONG = 60.0


def unrolled(actor: int, unroll: int, version: int = 0) -> Unrolled:
    """One without content, except an array, whose comparison would be an error."""
    nothing: dict = {"trajectory": None, "info": {}, "after": np.zeros(2)}
    return Unrolled(
        actor, unroll, 0, version, episodes=Episodes(0.0, 0.0, 0), **nothing
    )


# Parameters ----------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 5))
def test_the_newest_versions_can_be_had_and_no_others(keep, published, first):
    publisher = Publisher(Supervisor(LONG), keep)
    for version in range(first, first + published):
        publisher.publish(version, f"params {version}")
    newest = first + published - 1
    assert publisher.newest == newest
    kept = range(max(first, newest - keep + 1), newest + 1)
    assert [publisher.get(v) for v in kept] == [f"params {v}" for v in kept]
    with pytest.raises(KeyError):
        publisher.get(kept[0] - 1)


def test_older_parameters_are_those_before_the_newest_or_the_first():
    publisher = Publisher(Supervisor(LONG), keep=3)
    publisher.publish(0, "a")
    assert publisher.older(0) == () and publisher.older(2) == ("a", "a")
    publisher.publish(1, "b")
    assert publisher.older(2) == ("a", "a")
    publisher.publish(2, "c")
    assert publisher.older(2) == ("a", "b") and publisher.older(1) == ("b",)


def test_publishing_wakes_who_waits_for_it():
    supervisor = Supervisor(LONG)
    publisher = Publisher(supervisor, 1)
    publisher.publish(0, "a")
    got, looked = [], threading.Event()

    def ready():
        looked.set()
        return publisher.get(1) if publisher.newest == 1 else None

    supervisor.start("waits", lambda: got.append(supervisor.wait(ready, "params")))
    assert looked.wait(LONG)
    publisher.publish(1, "b")
    for thread in threading.enumerate():
        if thread.name == "waits":
            thread.join(LONG)
    assert supervisor.stop(LONG) == [] and got == ["b"]


# Schedules, driven by any interleaving of what actors and learner may do next -----


class Threads:
    """Actors, an uploader and a learner as steps in an order that a test draws.

    An actor begins an unroll when the schedule admits it, and later puts it if there is
    room; the learner takes what the schedule chooses, and publishes after each update.
    """

    def __init__(self, schedule, num_actors, per_update, first_update=0):
        self.schedule, self.per_update = schedule, per_update
        self.newest = first_update
        self.waiting: deque[Unrolled] = deque()
        self.acting: list[Unrolled | None] = [None] * num_actors
        self.unrolls = [first_update] * num_actors
        self.batch: list[Unrolled] = []
        self.taken: list[Unrolled] = []
        self.lags: list[int] = []

    def actor(self, i: int) -> bool:
        """The next step of an actor; False if it has to wait."""
        if (item := self.acting[i]) is None:
            version = self.schedule.admit(i, self.unrolls[i], self.newest)
            if version is None:
                return False
            assert 0 <= version <= self.newest
            self.acting[i] = unrolled(i, self.unrolls[i], version)
            return True
        if len(self.waiting) >= self.schedule.capacity:
            return False
        self.waiting.append(item)
        self.acting[i] = None
        self.unrolls[i] += 1
        return True

    def restart(self, i: int) -> None:
        """The unroll is lost, and begun again."""
        self.acting[i] = None

    def learner(self) -> bool:
        item = self.schedule.choose(self.waiting)
        if item is None:
            return False
        self.waiting = deque(x for x in self.waiting if x is not item)
        self.batch.append(item)
        if len(self.batch) == self.per_update:
            self.lags += [self.newest - x.version for x in self.batch]
            self.taken += self.batch
            self.batch = []
            self.newest += 1
        return True

    def stuck(self) -> bool:
        """Whether nobody can do anything any more; does something, if it is not."""
        return not (
            any(self.actor(i) for i in range(len(self.acting))) or self.learner()
        )


moves = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=150)


def drive(threads: Threads, order, restarts: bool = True) -> None:
    """Does what `order` says, and then goes on for a while."""
    num_actors = len(threads.acting)
    for who, restart in order:
        if who < num_actors and restart and restarts:
            threads.restart(who)
        elif who < num_actors:
            threads.actor(who)
        else:
            threads.learner()
    for _ in range(100):
        assert not threads.stuck()


counts = st.integers(1, 3)


@given(counts, counts, st.integers(0, 3), st.integers(0, 4), moves)
def test_no_row_is_older_than_max_lag_and_nobody_is_stuck(
    num_actors, per_update, max_lag, first_update, order
):
    schedule = Bounded(max_lag, per_update, first_update)
    threads = Threads(schedule, num_actors, per_update, first_update)
    drive(threads, order)
    assert threads.newest > first_update
    assert max(threads.lags) <= max_lag
    seen = [(x.actor, x.unroll) for x in threads.taken]
    assert len(set(seen)) == len(seen)


def test_max_lag_is_reached_and_not_only_kept():
    threads = Threads(Bounded(2, 1, 0), num_actors=1, per_update=1)
    while threads.actor(0):
        pass
    assert threads.unrolls[0] == 3  # ahead of the learner by all that is allowed
    for _ in range(3):
        assert threads.learner()
    assert threads.lags == [0, 1, 2]


def test_unrolls_are_learned_from_in_the_order_in_which_they_began():
    threads = Threads(Bounded(3, 1, 0), num_actors=2, per_update=1)
    assert threads.actor(0) and threads.actor(1)  # begin
    assert threads.actor(1) and not threads.learner()  # 1 is done, 0 was first
    assert threads.actor(0) and threads.learner() and threads.learner()
    assert [x.actor for x in threads.taken] == [0, 1]


@given(counts, st.integers(0, 3), st.integers(0, 4), moves)
def test_lockstep_learns_from_each_unroll_of_each_actor_in_their_order(
    num_actors, lag, first_update, order
):
    schedule = Lockstep(lag, num_actors, first_update)
    threads = Threads(schedule, num_actors, num_actors, first_update)
    drive(threads, order)
    expected = [
        (actor, unroll, max(0, unroll - lag))
        for unroll in range(first_update, threads.newest)
        for actor in range(num_actors)
    ]
    assert threads.newest > first_update
    assert [(x.actor, x.unroll, x.version) for x in threads.taken] == expected


@given(counts, st.integers(0, 3))
def test_lockstep_acts_ahead_by_its_lag_and_no_further(num_actors, lag):
    threads = Threads(Lockstep(lag, num_actors, 0), num_actors, num_actors)
    while any(threads.actor(i) for i in range(num_actors)):
        pass
    assert threads.unrolls == [lag + 1] * num_actors
    # All that may be acted has room.
    assert len(threads.waiting) == threads.schedule.capacity


@given(counts, counts, st.integers(1, 4), moves)
def test_free_acts_with_the_newest_and_learns_in_the_order_of_arrival(
    num_actors, per_update, capacity, order
):
    threads = Threads(Free(capacity), num_actors, per_update)
    drive(threads, order)
    assert threads.schedule.capacity == capacity
    assert threads.newest > 0
    assert threads.schedule.admit(0, 5, newest=9) == 9
    first, second = unrolled(1, 7), unrolled(0, 0)
    assert threads.schedule.choose(deque([first, second])) is first


# The queue -----------------------------------------------------------------------


def queue(schedule, patience: float = LONG):
    supervisor, tally = Supervisor(patience), Tally()
    return supervisor, tally, Queue(supervisor, schedule, tally)


def test_a_full_queue_makes_its_producer_wait_and_loses_nothing():
    supervisor, _, unrolls = queue(Free(2))
    longest = []

    def produce():
        for i in range(20):
            unrolls.put(unrolled(0, i))
            longest.append(len(unrolls))

    with supervisor.working():
        supervisor.start("actor 0", produce)
        assert [unrolls.get().unroll for _ in range(20)] == list(range(20))
    assert supervisor.stop(LONG) == []
    assert max(longest) <= 2 and len(unrolls) == 0


def test_many_producers_lose_and_double_nothing():
    supervisor, tally, unrolls = queue(Free(3))
    with supervisor.working():
        for actor in range(4):
            supervisor.start(
                f"actor {actor}",
                lambda actor=actor: (
                    [unrolls.put(unrolled(actor, i)) for i in range(25)] and None
                ),
            )
        got = [unrolls.get() for _ in range(100)]
    assert supervisor.stop(LONG) == []
    assert Counter((x.actor, x.unroll) for x in got) == Counter(
        (actor, i) for actor in range(4) for i in range(25)
    )
    for actor in range(4):
        assert [x.unroll for x in got if x.actor == actor] == list(range(25))
    assert tally.takes == 100 and 100 <= tally.depths <= 300


def test_the_queue_gives_what_the_schedule_chooses():
    supervisor, tally, unrolls = queue(Lockstep(0, num_actors=2, first_update=0))
    with supervisor.working():
        unrolls.put(unrolled(1, 0))
        unrolls.put(unrolled(0, 0))
        assert [unrolls.get().actor for _ in range(2)] == [0, 1]
    assert (tally.takes, tally.depths) == (2, 3)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda queue: queue.get(), "no unroll of an actor"),
        (lambda queue: queue.put(unrolled(0, 1)), "no room in the queue of unrolls"),
    ],
)
def test_waiting_for_the_queue_has_a_deadline(call, what):
    schedule = Lockstep(0, num_actors=1, first_update=3)
    supervisor, _, unrolls = queue(schedule, patience=0.05)
    with supervisor.working():
        unrolls.put(unrolled(0, 0))  # of the past: it will never be chosen
        with pytest.raises(RuntimeError, match=what):
            call(unrolls)


# A quorum ------------------------------------------------------------------------


class Clock:
    """Actors that need fixed times an unroll, and a learner that needs none."""

    def __init__(self, schedule, per_update, seconds, starts=None):
        self.schedule, self.per_update, self.seconds = schedule, per_update, seconds
        self.newest, self.waiting = 0, deque()
        self.taken: list[Unrolled] = []
        self.lags: list[int] = []
        self.dropped: list[Unrolled] = []
        self.unrolls = list(starts or [0] * len(seconds))
        self.acting: dict[int, tuple[int, Unrolled]] = {}

    def run(self, until):
        for now in range(until + 1):
            done = [i for i, (end, _) in self.acting.items() if end == now]
            self.waiting += [self.acting.pop(i)[1] for i in sorted(done)]
            assert len(self.waiting) <= self.schedule.capacity
            self.learn()
            for i, needed in enumerate(self.seconds):
                if i not in self.acting:
                    self.begin(i, now + needed)
        return self

    def begin(self, i, end):
        version = self.schedule.admit(i, self.unrolls[i], self.newest)
        if version is not None:
            self.acting[i] = end, unrolled(i, self.unrolls[i], version)
            self.unrolls[i] += 1

    def learn(self):
        while True:
            stale = self.schedule.stale(self.waiting)
            self.dropped += stale
            gone = {id(x) for x in stale}
            item = None
            self.waiting = deque(x for x in self.waiting if id(x) not in gone)
            if (item := self.schedule.choose(self.waiting)) is None:
                return
            self.waiting = deque(x for x in self.waiting if x is not item)
            self.taken.append(item)
            self.lags.append(self.newest - item.version)
            if len(self.taken) % self.per_update == 0:
                self.newest += 1

    def counts(self):
        learned = Counter(x.actor for x in self.taken)
        return [learned[i] for i in range(len(self.seconds))]


SLOW = (1, 1, 3, 3)
"""Seconds an unroll; what is slow has a return of 5, what is fast one of 1."""


@pytest.mark.parametrize(
    ("max_lag", "learned", "dropped", "mean"),
    [(0, [30, 30, 0, 0], 20, 1.0), (1, [30, 30, 0, 0], 20, 1.0),
     (2, [30, 30, 10, 10], 0, 2.0), (None, [30, 30, 10, 10], 0, 2.0)],
)  # fmt: skip
def test_a_quorum_and_a_bound_starve_the_slow(max_lag, learned, dropped, mean):
    clock = Clock(Quorum(2, 0, max_lag, 4, 0), 2, SLOW).run(30)
    assert clock.counts() == learned and len(clock.dropped) == dropped
    returns = [1 if x.actor < 2 else 5 for x in clock.taken]
    assert np.mean(returns) == mean
    assert max(clock.lags) <= (2 if max_lag is None else max_lag)


def test_lockstep_learns_from_the_slow_as_often():
    clock = Clock(Lockstep(0, 4, 0), 4, SLOW).run(30)
    assert clock.counts() == [10] * 4
    assert np.mean([1 if x.actor < 2 else 5 for x in clock.taken]) == 3


@pytest.mark.parametrize("quorum", [1, 2, 3])
def test_actors_that_are_always_ready_are_learned_from_equally_often(quorum):
    """Not the first ready one of a list, which is always the same."""
    clock = Clock(Quorum(quorum, 0, None, 4, 0), quorum, (1, 1, 1, 1)).run(40)
    counts = clock.counts()
    assert max(counts) - min(counts) <= 1 and sum(counts) >= 100


def test_one_at_a_time_goes_around():
    threads = Threads(Quorum(1, 0, None, 4, 0), num_actors=4, per_update=1)
    for _ in range(100):
        while any(threads.actor(i) for i in range(4)):
            pass
        assert threads.learner()
    assert Counter(x.actor for x in threads.taken) == Counter(
        dict.fromkeys(range(4), 25)
    )
    assert [x.actor for x in threads.taken[:5]] == [0, 1, 2, 3, 0]


def test_after_it_goes_on_the_next_is_who_has_done_least():
    """Three in turn, saved after 4 unrolls, of actors 0, 1, 2 and 0."""
    threads = Threads(Quorum(1, 0, None, 3, first_update=4), 3, 1, first_update=4)
    threads.unrolls = [2, 1, 1]
    while any(threads.actor(i) for i in range(3)):
        pass
    assert threads.learner() and threads.taken[0].actor == 1


@given(counts, st.integers(0, 2), st.integers(0, 4), moves)
def test_a_quorum_of_all_is_lockstep(num_actors, lag, first_update, order):
    """The same unrolls in each update; without lag of the same versions, too."""
    schedule = Quorum(num_actors, lag, None, num_actors, first_update)
    threads = Threads(schedule, num_actors, num_actors, first_update)
    drive(threads, order)
    assert threads.newest > first_update
    for start in range(0, len(threads.taken) - num_actors + 1, num_actors):
        batch = threads.taken[start : start + num_actors]
        if lag == 0:
            unroll = first_update + start // num_actors
            expected = [(actor, unroll, unroll) for actor in range(num_actors)]
            found = [(x.actor, x.unroll, x.version) for x in batch]
            assert sorted(found) == expected
    assert max(threads.lags) <= lag


@given(st.integers(1, 3), st.integers(0, 1), st.integers(0, 3), moves)
def test_with_a_quorum_nobody_is_stuck(quorum, lag, first_update, order):
    threads = Threads(
        Quorum(quorum, lag, None, 3, first_update), 3, quorum, first_update
    )
    drive(threads, order)
    seen = [(x.actor, x.unroll) for x in threads.taken]
    assert len(set(seen)) == len(seen) and threads.newest > first_update


def test_what_is_too_old_is_dropped_and_counted():
    supervisor, tally, unrolls = queue(Quorum(1, 1, 0, num_actors=2, first_update=0))
    schedule = unrolls._schedule
    with supervisor.working():
        for actor in (0, 1):
            assert schedule.admit(actor, 0, newest=0) == 0
            item = unrolled(actor, 0)
            reward = np.zeros((4, 2), np.float32)
            rows = Trajectory(None, None, reward, None, {}, ())
            unrolls.put(item._replace(trajectory=rows))
        assert unrolls.get().actor == 0
        # Actor 1's would be one update old in the next.
        assert schedule.admit(0, 1, newest=1) == 1
        unrolls.put(unrolled(0, 1, 1))
        assert unrolls.get().unroll == 1
    assert [x.actor for x in unrolls.dropped()] == [1] and unrolls.dropped() == []
    assert tally.dropped_rows == 8 and tally.stale_rows == Counter({1: 8})
