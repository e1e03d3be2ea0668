"""Nothing waits for ever, nothing fails in silence, and the owner is told."""

import threading
import time
import traceback
from types import SimpleNamespace

import pytest

from jaxrl_par.bridge import supervision
from jaxrl_par.bridge.supervision import (
    Activity,
    DeadlineError,
    HangError,
    Stopped,
    Supervisor,
)

LONG = 60.0
"""Seconds that no test takes; a wait that lasts as long has missed its end."""


@pytest.fixture
def supervisor():
    """With much patience, and an owner at work."""
    supervisor = Supervisor(patience=LONG)
    with supervisor.working():
        yield supervisor
    assert supervisor.stop(LONG) == []


def never():
    return None


# Waiting -------------------------------------------------------------------------


def test_a_wait_ends_with_the_first_result_that_is_not_none(supervisor):
    results = iter([None, None, 0])
    assert supervisor.wait(lambda: next(results), "number") == 0


def test_a_wait_looks_under_the_lock(supervisor):
    seen = []

    def ready():
        other = threading.Thread(
            target=lambda: seen.append(supervisor.condition.acquire(blocking=False))
        )
        other.start()
        other.join()
        return True

    supervisor.wait(ready, "lock")
    assert seen == [False]


def test_a_notification_wakes_a_wait_at_once(supervisor):
    there, looked = [], threading.Event()

    def ready():
        looked.set()
        return there[0] if there else None

    def work():
        there.append("it")
        with supervisor.condition:
            supervisor.condition.notify_all()

    supervisor.start("other", lambda: (looked.wait(LONG), work()))
    assert supervisor.wait(ready, "it") == "it"


def test_patience_ends_with_what_was_missing_and_what_others_do():
    supervisor = Supervisor(patience=0.05)
    for name in ("actor 0", "actor 1"):
        supervisor.watch(activity := Activity(name, limit=LONG))
        activity.begin(f"step of {name}")
    with (
        supervisor.working(),
        pytest.raises(DeadlineError, match=r"no bread for 0.* s") as error,
    ):
        supervisor.wait(never, "bread")
    assert not isinstance(error.value, HangError)
    for name in ("actor 0", "actor 1"):
        assert f"{name}: step of {name}" in str(error.value)


def test_nobody_is_late_while_the_owner_does_something_else():
    supervisor = Supervisor(patience=0.1)
    done, ended = threading.Event(), threading.Event()

    def waits():
        supervisor.wait(lambda: done.is_set() or None, "end")
        ended.set()

    supervisor.start("waits", waits)  # the owner is not at work yet
    time.sleep(0.4)
    done.set()
    assert ended.wait(LONG)
    supervisor.check()
    assert supervisor.stop(LONG) == []


def test_the_deadline_is_that_of_each_wait_not_of_all():
    supervisor = Supervisor(patience=0.6)
    with supervisor.working():
        for _ in range(3):
            until = time.monotonic() + 0.3
            supervisor.wait(lambda t=until: time.monotonic() > t or None, "moment")


# The clock -----------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Time that a test makes pass, by `clock.now`."""
    clock = SimpleNamespace(now=50.0)
    clock.perf_counter = clock.monotonic = lambda: clock.now
    monkeypatch.setattr(supervision, "time", clock)
    return clock


def test_the_clock_stands_still_unless_the_owner_works(clock):
    supervisor = Supervisor(LONG)

    def moves():
        before = supervisor.clock()
        clock.now += 1.0
        return supervisor.clock() - before

    start = supervisor.clock()
    assert moves() == 0
    with supervisor.working():
        assert supervisor.clock() == start and moves() == 1
        with supervisor.paused():
            assert moves() == 0
        assert supervisor.clock() == start + 1 and moves() == 1
    assert moves() == 0
    with pytest.raises(ValueError, match="mine"), supervisor.working():
        raise ValueError("mine")
    assert moves() == 0 and supervisor.clock() == start + 2


def test_the_clock_never_goes_back():
    supervisor = Supervisor(LONG)
    steps, stop = [], threading.Event()

    def reads():
        last = supervisor.clock()
        while not stop.is_set():
            now = supervisor.clock()
            if now < last:
                steps.append(now - last)
            last = now

    supervisor.start("reads", reads)
    for _ in range(200):
        with supervisor.working(), supervisor.paused():
            time.sleep(0.0001)
    stop.set()
    assert supervisor.stop(LONG) == [] and steps == []


# Failures ------------------------------------------------------------------------


def test_the_owner_gets_the_very_error_with_its_traceback(supervisor):
    error = KeyError("mine")

    def breaks_here():
        raise error

    supervisor.start("other", breaks_here)
    with pytest.raises(KeyError) as raised:
        supervisor.wait(never, "nothing")
    assert raised.value is error
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names[-1] == "breaks_here"


def test_even_errors_that_end_a_process_are_handed_over(supervisor):
    def exits():
        raise SystemExit(3)

    supervisor.start("other", exits)
    with pytest.raises(SystemExit):
        supervisor.wait(never, "nothing")


def test_only_the_first_failure_counts(supervisor):
    supervisor.fail(ValueError("first"))
    supervisor.fail(ValueError("second"))
    for _ in range(2):
        with pytest.raises(ValueError, match="first"):
            supervisor.check()


def test_a_failure_ends_other_threads_without_an_error_of_their_own(supervisor):
    ends, waits = [], threading.Event()

    def ready():
        waits.set()

    def waiting():
        try:
            supervisor.wait(ready, "nothing")
        except BaseException as error:
            ends.append(type(error))
            raise

    supervisor.start("waiting", waiting)
    assert waits.wait(LONG)
    supervisor.start("failing", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        supervisor.wait(never, "nothing")
    assert supervisor.stop(LONG) == []
    assert ends == [Stopped]


def test_what_fails_after_the_stop_is_of_no_interest():
    supervisor = Supervisor(LONG)
    supervisor.stop(0.0)
    supervisor.fail(ValueError("late"))
    with pytest.raises(Stopped):
        supervisor.check()


# Hangs ---------------------------------------------------------------------------


def test_an_activity_is_late_only_in_a_call_and_after_its_limit(clock):
    activity = Activity("actor 0", limit=5.0)
    clock.now += 10
    assert not activity.give_up_if_late()
    activity.begin("step")
    clock.now += 5
    assert not activity.give_up_if_late() and not activity.given_up
    activity.end()
    clock.now += 10
    assert not activity.give_up_if_late() and not activity.given_up
    activity.begin("step")
    clock.now += 6
    assert activity.give_up_if_late() and activity.given_up


def test_a_call_that_comes_back_too_late_ends_its_thread(clock):
    activity = Activity("actor 0", limit=5.0)
    activity.begin("step")
    clock.now += 6
    assert activity.give_up_if_late()
    with pytest.raises(Stopped):
        activity.end()
    cancelled = Activity("actor 0", limit=5.0)
    cancelled.begin("step")
    cancelled.give_up()
    with pytest.raises(Stopped):
        cancelled.end()


def test_time_for_which_the_process_stood_still_does_not_count(clock, monkeypatch):
    supervisor, waits = Supervisor(patience=20.0), []
    activity = Activity("actor 0", limit=5.0)
    supervisor.watch(activity)
    activity.begin("step")

    def stopped(timeout):
        waits.append(timeout)
        # As between Ctrl-Z and fg.
        clock.now += 1000 if len(waits) == 3 else timeout

    monkeypatch.setattr(supervisor.condition, "wait", stopped)
    with supervisor.working():
        supervisor.wait(lambda: len(waits) == 10 or None, "unroll")
        assert not activity.given_up
        # A call that hangs is late all the same, and so is who waits too long.
        with pytest.raises(HangError):
            supervisor.wait(never, "unroll")
        assert 40 < len(waits) < 60
        with pytest.raises(DeadlineError):
            supervisor.wait(never, "unroll")


def test_a_call_that_hangs_is_an_error_with_its_name(supervisor):
    activity = Activity("actor 3", limit=0.05)
    supervisor.watch(activity)
    activity.begin("reset")
    with pytest.raises(HangError, match=r"actor 3: reset has not returned for 0\.05 s"):
        supervisor.wait(never, "unroll")


def test_whoever_waits_notices_a_hang_and_the_owner_raises_it(supervisor):
    activity = Activity("actor 0", limit=0.05)
    supervisor.watch(activity)
    activity.begin("step")
    waiter = threading.Event()

    def waits():
        try:
            supervisor.wait(never, "unroll")
        except Stopped:
            waiter.set()

    supervisor.start("waits", waits)
    assert waiter.wait(LONG)
    with pytest.raises(HangError):
        supervisor.check()


def test_a_hang_is_handled_once_and_the_wait_goes_on_if_it_was_no_failure(supervisor):
    hangs = []
    supervisor.on_hang = lambda activity, error: hangs.append((activity, error))
    activity = Activity("actor 0", limit=0.02)
    supervisor.watch(activity)
    activity.begin("step")
    until = time.monotonic() + 0.5
    supervisor.wait(lambda: time.monotonic() > until or None, "moment")
    assert [x for x, _ in hangs] == [activity]
    assert isinstance(hangs[0][1], HangError)


def test_a_successor_of_the_same_name_is_watched_instead(supervisor):
    late, successor = (Activity("actor 0", limit=0.02) for _ in range(2))
    supervisor.watch(late)
    late.begin("step")
    supervisor.watch(successor)
    until = time.monotonic() + 0.3
    supervisor.wait(lambda: time.monotonic() > until or None, "moment")
    assert not late.given_up


# Stopping ------------------------------------------------------------------------


def test_stop_ends_waits_and_names_who_does_not_end():
    supervisor = Supervisor(LONG)
    release = threading.Event()
    supervisor.start("waits", lambda: supervisor.wait(never, "nothing"))
    supervisor.start("hangs", lambda: release.wait(LONG))
    assert supervisor.stop(1.0) == ["hangs"]
    release.set()
    assert supervisor.stop(LONG) == []


def test_stop_waits_for_all_threads_together_not_for_each():
    supervisor = Supervisor(LONG)
    release = threading.Event()
    for i in range(40):
        supervisor.start(f"hangs {i}", lambda: release.wait(LONG))
    before = time.monotonic()
    assert len(supervisor.stop(0.25)) == 40
    assert time.monotonic() - before < 40 * 0.25 / 2
    release.set()
    assert supervisor.stop(LONG) == []


def test_threads_do_not_keep_a_process_alive():
    supervisor = Supervisor(LONG)
    daemons = []
    supervisor.start(
        "thread", lambda: daemons.append(threading.current_thread().daemon)
    )
    assert supervisor.stop(LONG) == [] and daemons == [True]
