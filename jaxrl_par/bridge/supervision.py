"""Threads that cannot fail in silence, hang unnoticed, or outlive their owner.

Every wait goes through one `Supervisor`. It ends when what it waits for is there, when
any thread failed, when the owner stops, or at a deadline; nothing else blocks. What may
hang without waiting, a simulator, is timed from outside by its `Activity`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from jaxrl_par.errors import ReadIf, above, at_least, at_most, not_chosen

T = TypeVar("T")
_TICK = 0.1
"""Seconds between two looks at activities while waiting."""
_STOPPED = 2.0
"""A look that comes so many seconds late: nothing ran meanwhile, as after Ctrl-Z."""


@dataclass(frozen=True)
class SupervisionConfig:
    """When a thread is late, and what an error of its environments does."""

    read_if: ClassVar[ReadIf] = {"max_restarts": ("on_error", ("restart",))}
    """What each of these fields is for: another one, and its values."""

    on_error: Literal["raise", "restart"] = "raise"
    """What an error of an environment does: ends the run, or makes the environments of
    that thread anew, which is counted; rows of the unroll in progress are dropped."""
    max_restarts: int = 10
    """Restarts of a thread's environments after which the next error ends the run."""
    env_timeout: float = 60.0
    """Seconds that one call of an environment may take."""
    patience: float = 300.0
    """Seconds that one thread may wait for another."""
    close_seconds: float = 5.0
    """Seconds that ending all threads may take. One inside a call that does not return
    is then left behind."""
    check_bounds: bool = True
    """Refuse observations outside the bounds that a simulator declares."""

    @property
    def restarts(self) -> int:
        """Errors of an actor that make its environments anew."""
        return self.max_restarts if self.on_error == "restart" else 0

    def problems(self) -> list[str]:
        """What is out of range."""
        found = not_chosen(self) + at_least(self, max_restarts=0)
        seconds = ("env_timeout", "patience", "close_seconds")
        found += above(self, **dict.fromkeys(seconds, 0))
        return found + at_most(self, **dict.fromkeys(seconds, 10**9))


class Stopped(Exception):  # noqa: N818, it is no error
    """The owner stops: a thread ends at its next wait."""


class DeadlineError(RuntimeError):
    """Something took longer than it may."""


class HangError(DeadlineError):
    """An environment does not come back from a call."""


class Activity:
    """What a thread does now, to say why nothing comes from it."""

    def __init__(self, name: str, limit: float):
        """`limit`: seconds that a timed call may take."""
        self.name = name
        self.limit = limit
        self.doing = "starting"
        self.given_up = False
        """True when no other thread waits for this one any longer."""
        self._since: float | None = None
        self._lock = threading.Lock()

    def begin(self, doing: str) -> None:
        """Starts to time a call."""
        # Without the lock: who reads the old value finds a late call one tick later.
        self.doing = doing
        self._since = time.monotonic()

    def end(self) -> None:
        """The call came back, or there was none.

        Raises:
          Stopped: too late.
        """
        # In one piece: a call must not be found late when it has just come back, or the
        # thread and the one that takes its place would both go on.
        with self._lock:
            self._since = None
            if self.given_up:
                raise Stopped

    def give_up(self) -> None:
        """Makes the thread end as soon as its call comes back."""
        with self._lock:
            self.given_up = True

    def forgive(self, seconds: float) -> None:
        """The call may take so much longer: the process stood still meanwhile."""
        with self._lock:
            if self._since is not None:
                # Not into the future: several threads wait, and each of them notices.
                self._since = min(self._since + seconds, time.monotonic())

    def give_up_if_late(self) -> bool:
        """Whether the call takes longer than it may; if so, it can no longer come back
        in time, and another thread may take its place."""
        with self._lock:
            since = self._since
            late = since is not None and time.monotonic() - since > self.limit
            self.given_up |= late
            return late


class Supervisor:
    """The shared failure slot, and the only way to wait."""

    def __init__(self, patience: float):
        """`patience`: longest wait in seconds before it is an error."""
        self.patience = patience
        self.condition = threading.Condition()
        """Guards everything that threads share; notified after each change."""
        # Since when the owner is away, and for how long it was: read in one piece.
        self._away: tuple[float | None, float] = (time.perf_counter(), 0.0)
        self._stopping = False
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._activities: dict[str, Activity] = {}
        self.on_hang: Callable[[Activity, HangError], None] = lambda _, x: self.fail(x)

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Runs `work` in a thread of its own; what it raises becomes the failure."""

        def body() -> None:
            try:
                work()
            except Stopped:
                pass
            except BaseException as error:
                self.fail(error)

        thread = threading.Thread(target=body, name=name, daemon=True)
        with self.condition:
            self._threads.append(thread)
        thread.start()

    def watch(self, activity: Activity) -> None:
        """Times the calls of one more thread, or of a new one of the same name."""
        with self.condition:
            self._activities[activity.name] = activity

    def fail(self, error: BaseException) -> None:
        """Keeps the first failure, and wakes everyone."""
        with self.condition:
            # The first one is the cause of others, and what a stop makes fail is none.
            if self._failure is None and not self._stopping:
                self._failure = error
            self.condition.notify_all()

    def clock(self) -> float:
        """Seconds that stand still while the owner does something else, such as an
        evaluation, and no thread can be late."""
        since, seconds = self._away
        return (time.perf_counter() if since is None else since) - seconds

    def check(self) -> None:
        """Raises what failed, in the owner's thread only: its traceback stays as it is.

        Raises:
          Stopped: in the other threads, if one failed or the owner stops.
          BaseException: the failure of whichever thread failed first.
        """
        # Read without the lock: the list only grows, and has a thread before it starts;
        # a failure is never replaced, and `_stopping` is never False again.
        ours = threading.current_thread() in self._threads
        if self._failure is not None and not ours:
            raise self._failure
        if self._stopping or self._failure is not None:
            raise Stopped

    def wait(self, ready: Callable[[], T | None], what: str) -> T:
        """The first result of `ready` that is neither None nor False; it is called
        under the lock.

        Raises:
          DeadlineError: nothing came for `patience` seconds in which the owner was not
            busy with something else.
          BaseException: as `check`.
        """
        with self.condition:
            started = self.clock()
            while True:
                self.check()
                self._check_activities()
                if (result := ready()) is not None and result is not False:
                    return result
                waited = self.clock() - started
                if waited >= self.patience:
                    raise DeadlineError(self._late(what, waited))
                # With an end, as a call that hangs notifies no one: each thread that
                # waits looks after all activities.
                before = time.monotonic()
                self.condition.wait(_TICK)
                if stopped := _stood_still(before):
                    started += stopped
                    for activity in self._activities.values():
                        activity.forgive(stopped)

    def acquire(self, lock: Any, what: str = "lock") -> None:
        """Takes the lock of `threading`, as `wait` would wait for it.

        Raises:
          DeadlineError, BaseException: as `wait`.
        """
        started, before = self.clock(), time.monotonic()
        # In short pieces: a wait for a lock does not end when another thread fails.
        while not lock.acquire(timeout=_TICK):
            started += _stood_still(before)
            before = time.monotonic()
            self.check()
            if (waited := self.clock() - started) >= self.patience:
                raise DeadlineError(self._late(what, waited))

    def working(self) -> AbstractContextManager[None]:
        """Lets the clock run: the owner takes part, and others may wait for it."""
        return _between(self._come_back, self._leave)

    def paused(self) -> AbstractContextManager[None]:
        """Stops the clock while the owner does something slow, such as compiling, that
        must not look like a hang."""
        return _between(self._leave, self._come_back)

    def stop(self, timeout: float) -> list[str]:
        """Ends all threads; the names of those that did not end within `timeout`.

        They are daemons, inside a call that does not return: they end with the process,
        or at their next wait.
        """
        with self.condition:
            # First, so that threads which start after the copy end at their first wait.
            self._stopping = True
            self.condition.notify_all()
            threads = list(self._threads)
        deadline = time.monotonic() + timeout
        for thread in threads:
            # An owner that is forgotten may be missed by one of the threads itself.
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in threads if thread.is_alive()]

    def _leave(self) -> None:
        self._away = (time.perf_counter(), self._away[1])

    def _come_back(self) -> None:
        # Without the lock: only the owner writes it, and others read a whole pair.
        since, seconds = self._away
        assert since is not None
        self._away = (None, seconds + time.perf_counter() - since)

    def _check_activities(self) -> None:
        for activity in list(self._activities.values()):
            # The lock is held, and each activity is given up once: one successor.
            if activity.give_up_if_late():
                del self._activities[activity.name]
                error = HangError(
                    f"{activity.name}: {activity.doing} has not returned for"
                    f" {activity.limit:g} s"
                )
                self.on_hang(activity, error)
                self.check()

    def _late(self, what: str, waited: float) -> str:
        # Copied in one step: `acquire` asks without the lock.
        activities = list(self._activities.values())
        doing = "; ".join(f"{x.name}: {x.doing}" for x in activities)
        return f"no {what} for {waited:.1f} s. Now: {doing or 'no actor runs'}"


def _stood_still(before: float) -> float:
    """Seconds for which nothing ran, since a wait of one tick began."""
    late = time.monotonic() - before - _TICK
    return late if late > _STOPPED else 0.0


@contextmanager
def _between(before: Callable[[], None], after: Callable[[], None]) -> Iterator[None]:
    before()
    try:
        yield
    finally:
        after()
