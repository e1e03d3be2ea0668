"""Threads that cannot fail in silence, hang unnoticed, or outlive their owner.

Every wait goes through one `Supervisor`. It ends when what it waits for is there, when
any thread failed, when the owner stops, or at a deadline; nothing else blocks. What may
hang without waiting, a simulator, is timed from outside by its `Activity`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
_TICK = 0.1
"""Seconds between two looks at activities while waiting."""


class Stopped(Exception):  # noqa: N818, it is no error
    """The owner stops: a thread ends at its next wait."""


class DeadlineError(RuntimeError):
    """Something took longer than it may."""


class HangError(DeadlineError):
    """An environment does not come back from a call."""


class Activity:
    """What a thread does now, for whoever wonders why nothing comes."""

    def __init__(self, name: str, limit: float):
        """`limit`: seconds that a timed call may take."""
        self.name = name
        self.limit = limit
        self.doing = "starting"
        self.since: float | None = None
        """When the timed call in progress began, None outside of one."""

    def begin(self, doing: str) -> None:
        """Starts to time a call."""
        self.doing = doing
        self.since = time.monotonic()

    def end(self) -> None:
        self.since = None

    def overdue(self) -> float:
        """Seconds beyond the limit, at most 0 if there is no need to worry."""
        since = self.since
        return 0.0 if since is None else time.monotonic() - since - self.limit


class Supervisor:
    """The shared failure slot, and the only way to wait."""

    def __init__(self, patience: float):
        """`patience`: longest wait in seconds before it is an error."""
        self.patience = patience
        self.condition = threading.Condition()
        """Guards everything that threads share; notified after each change."""
        self._paused_since: float | None = time.perf_counter()
        self._paused_seconds = 0.0
        self._stopping = False
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._activities: dict[str, Activity] = {}
        self.on_hang: Callable[[Activity, HangError], None] = self._raise_hang

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
            if self._failure is None and not self._stopping:
                self._failure = error
            self.condition.notify_all()

    def clock(self) -> float:
        """Seconds that stand still while the owner does something else, such as an
        evaluation, and nobody can be late."""
        now = self._paused_since or time.perf_counter()
        return now - self._paused_seconds

    def check(self) -> None:
        """Raises what failed, in the owner's thread only: its traceback stays as it is.

        Raises:
          Stopped: in the other threads, if one failed or the owner stops.
          BaseException: the failure of whichever thread failed first.
        """
        ours = threading.current_thread() in self._threads
        if self._failure is not None and not ours:
            raise self._failure
        if self._stopping or self._failure is not None:
            raise Stopped

    def wait(self, ready: Callable[[], T | None], what: str) -> T:
        """The first result of `ready` that is not None; called under the lock.

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
                if (result := ready()) is not None:
                    return result
                waited = self.clock() - started
                if waited >= self.patience:
                    raise DeadlineError(self._late(what, waited))
                self.condition.wait(_TICK)

    @contextmanager
    def working(self) -> Iterator[None]:
        """While the owner takes part, others may expect something of it."""
        assert self._paused_since is not None
        self._paused_seconds += time.perf_counter() - self._paused_since
        self._paused_since = None
        try:
            yield
        finally:
            self._paused_since = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While the owner, at work, does something long that others know nothing of."""
        self._paused_since = time.perf_counter()
        try:
            yield
        finally:
            self._paused_seconds += time.perf_counter() - self._paused_since
            self._paused_since = None

    def stop(self, timeout: float) -> list[str]:
        """Ends all threads; the names of those that did not end within `timeout`.

        They are daemons, inside a call that does not return: they end with the process,
        or at their next wait.
        """
        with self.condition:
            self._stopping = True
            self.condition.notify_all()
            threads = list(self._threads)
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in threads if thread.is_alive()]

    def _check_activities(self) -> None:
        for activity in list(self._activities.values()):
            if activity.overdue() > 0:
                del self._activities[activity.name]
                error = HangError(
                    f"{activity.name}: {activity.doing} has not returned for"
                    f" {activity.limit:g} s"
                )
                self.on_hang(activity, error)

    def _raise_hang(self, activity: Activity, error: HangError) -> None:
        del activity
        self.fail(error)
        self.check()

    def _late(self, what: str, waited: float) -> str:
        doing = "; ".join(f"{x.name}: {x.doing}" for x in self._activities.values())
        return f"no {what} for {waited:.1f} s. Now: {doing or 'no actor runs'}"
