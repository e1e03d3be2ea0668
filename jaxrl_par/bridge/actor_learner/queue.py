"""What actors and learner hand to each other, and in which order.

Both directions are guarded by the supervisor's lock. Who may act when, and what is
learned from next, is decided by a `Schedule`; it never waits itself.
"""

from collections import deque
from typing import Protocol, runtime_checkable

from jaxrl_par.bridge.reports import Tally
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.bridge.unrolled import Unrolled
from jaxrl_par.types import Params


class Publisher:
    """Parameters by version; a version is the number of updates that made it. Read
    under the lock, or by the owner while nobody publishes."""

    def __init__(self, supervisor: Supervisor, keep: int):
        """`keep`: newest versions that can still be had."""
        self._supervisor = supervisor
        self._keep = keep
        self._params: dict[int, Params] = {}

    @property
    def newest(self) -> int:
        return max(self._params)

    def publish(self, version: int, params: Params) -> None:
        with self._supervisor.condition:
            self._params[version] = params
            while len(self._params) > self._keep:
                del self._params[min(self._params)]
            self._supervisor.condition.notify_all()

    def get(self, version: int) -> Params:
        return self._params[version]

    def chosen(self, version: int | None) -> tuple[int, Params]:
        """That version, by default the newest, and its parameters; in any thread."""
        with self._supervisor.condition:
            version = self.newest if version is None else version
            return version, self._params[version]

    def older(self, count: int, version: int | None = None) -> tuple[Params, ...]:
        """The `count` versions before `version`, by default the newest, oldest first,
        padded with the oldest one kept."""
        version = self.newest if version is None else version
        versions = range(version - count, version)
        return tuple(self._params[max(v, min(self._params))] for v in versions)


@runtime_checkable
class Schedule(Protocol):
    """Which parameters act, and which unroll is learned from next."""

    capacity: int
    """Unrolls that may wait in the queue."""

    def admit(self, actor: int, unroll: int, newest: int) -> int | None:
        """The version with which to act, None as long as the actor has to wait."""

    def choose(self, waiting: deque[Unrolled]) -> Unrolled | None:
        """The next one of those that wait to be learned from, if it is there."""

    def stale(self, waiting: deque[Unrolled]) -> list[Unrolled]:
        """Those that wait and are too old to be learned from, which drops them."""
        return []


class Free(Schedule):
    """Any actor acts with the newest parameters; first come, first served."""

    def __init__(self, queue_size: int):
        self.capacity = queue_size

    def admit(self, actor: int, unroll: int, newest: int) -> int | None:
        return newest

    def choose(self, waiting: deque[Unrolled]) -> Unrolled | None:
        return waiting[0] if waiting else None


class Bounded(Schedule):
    """Like `Free`, but no row is older than `max_lag` updates when it is learned from.

    An unroll gets a ticket when it begins, and unrolls are learned from in the order of
    tickets. So it is known at the beginning in which update an unroll will be used, and
    an actor waits until that is at most `max_lag` away. Nothing has to be dropped.
    """

    def __init__(self, max_lag: int, unrolls_per_update: int, first_update: int):
        self.capacity = (max_lag + 1) * unrolls_per_update
        self._max_lag = max_lag
        self._per_update = unrolls_per_update
        self._first_update = first_update
        self._tickets: dict[tuple[int, int], int] = {}
        self._issued = self._taken = 0

    def admit(self, actor: int, unroll: int, newest: int) -> int | None:
        # By actor and unroll: who acts an unroll once more, after an error, has the
        # ticket of the first time. A ticket without an unroll would stop the learner.
        ticket = self._tickets.get((actor, unroll), self._issued)
        update = self._first_update + ticket // self._per_update
        if update - newest > self._max_lag:
            return None
        # Issued when the actor is let in, not when it asks: one that ends while it
        # waits leaves no gap.
        if ticket == self._issued:
            self._tickets[actor, unroll] = ticket
            self._issued += 1
        return newest

    def choose(self, waiting: deque[Unrolled]) -> Unrolled | None:
        for item in waiting:
            if self._tickets[item.actor, item.unroll] == self._taken:
                self._taken += 1
                del self._tickets[item.actor, item.unroll]
                return item
        return None


class Lockstep(Schedule):
    """Update n learns from unroll n of every actor, in their order, acted with the
    parameters of `lag` updates before."""

    def __init__(self, lag: int, num_actors: int, first_update: int):
        self.capacity = (lag + 1) * num_actors
        self._lag = lag
        self._num_actors = num_actors
        self._taken = first_update * num_actors

    def admit(self, actor: int, unroll: int, newest: int) -> int | None:
        version = max(0, unroll - self._lag)
        return version if version <= newest else None

    def choose(self, waiting: deque[Unrolled]) -> Unrolled | None:
        wanted = divmod(self._taken, self._num_actors)
        item = next((x for x in waiting if (x.unroll, x.actor) == wanted), None)
        self._taken += item is not None
        return item


class InTurn(Lockstep):
    """Like `Lockstep`, but with the newest parameters: at most `lag` updates before
    those that learn from it."""

    def admit(self, actor: int, unroll: int, newest: int) -> int | None:
        version = super().admit(actor, unroll, newest)
        return None if version is None else newest


class Quorum(Schedule):
    """Update n learns from the first `quorum` unrolls that are there, oldest first:
    acted with the oldest parameters, and of those the actor's that has done least.

    An actor acts with the newest parameters. It waits while more than `lag` of its
    unrolls are neither dropped nor in an update whose parameters are there; and while
    what it would act now would be too old for any update.
    """

    def __init__(
        self,
        quorum: int,
        lag: int,
        max_lag: int | None,
        num_actors: int,
        first_update: int,
    ):
        self.capacity = (lag + 1) * num_actors
        self._quorum = quorum
        self._lag = lag
        self._max_lag = max_lag
        self._first_update = first_update
        self._taken = 0
        self._open: dict[int, dict[int, int | None]] = {}
        """By actor and unroll: the version that has learned from it, if it is known."""

    def admit(self, actor: int, unroll: int, newest: int) -> int | None:
        learned = self._open.get(actor, {}).items()
        still = {n: x for n, x in learned if x is None or x > newest}
        self._open[actor] = still
        if unroll not in still and (len(still) > self._lag or self._is_late(newest)):
            return None
        # Also who acts an unroll once more, after an error.
        still[unroll] = None
        return newest

    def choose(self, waiting: deque[Unrolled]) -> Unrolled | None:
        if not waiting:
            return None
        item = min(waiting, key=lambda x: (x.version, x.unroll, x.actor))
        self._open[item.actor][item.unroll] = self._update + 1
        self._taken += 1
        return item

    def stale(self, waiting: deque[Unrolled]) -> list[Unrolled]:
        found = [x for x in waiting if self._is_late(x.version)]
        for item in found:
            del self._open[item.actor][item.unroll]
        return found

    @property
    def _update(self) -> int:
        """That which learns from the next unroll."""
        return self._first_update + self._taken // self._quorum

    def _is_late(self, version: int) -> bool:
        return self._max_lag is not None and self._update - version > self._max_lag


class Queue:
    """Unrolls that wait to be learned from, with back-pressure."""

    def __init__(self, supervisor: Supervisor, schedule: Schedule, tally: Tally):
        self._supervisor = supervisor
        self._schedule = schedule
        self._tally = tally
        self._waiting: deque[Unrolled] = deque()
        self._dropped: list[Unrolled] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: Unrolled) -> None:
        """Adds an unroll as soon as there is room."""

        def room() -> bool:
            # The test and the entry are one step: `ready` is called under the lock.
            if len(self._waiting) >= self._schedule.capacity:
                return False
            self._waiting.append(item)
            self._supervisor.condition.notify_all()
            return True

        self._supervisor.wait(room, "room in the queue of unrolls")

    def get(self) -> Unrolled:
        """The unroll that the schedule wants next, as soon as it is there."""

        def next_one() -> Unrolled | None:
            self._drop(self._schedule.stale(self._waiting))
            depth = len(self._waiting)
            if (item := self._schedule.choose(self._waiting)) is not None:
                # Not `remove`, which would compare arrays.
                self._waiting = deque(x for x in self._waiting if x is not item)
                self._tally.depths += depth
                self._tally.takes += 1
                self._supervisor.condition.notify_all()
            return item

        return self._supervisor.wait(next_one, "unroll of an actor")

    def dropped(self) -> list[Unrolled]:
        """What was dropped since this was asked for."""
        with self._supervisor.condition:
            dropped, self._dropped = self._dropped, []
        return dropped

    def _drop(self, items: list[Unrolled]) -> None:
        """Called under the lock."""
        for item in items:
            self._waiting = deque(x for x in self._waiting if x is not item)
            rows = item.trajectory.reward.size
            self._tally.dropped_rows += rows
            self._tally.stale_rows[item.actor] += rows
            # Where it was acted to is all that is still asked for.
            self._dropped.append(item)
        if items:
            self._supervisor.condition.notify_all()
