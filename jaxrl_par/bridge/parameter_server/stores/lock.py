"""A store that one worker at a time updates."""

import threading
from contextlib import suppress

from jaxrl_par.bridge.parameter_server.shards import Shards
from jaxrl_par.bridge.parameter_server.stores import store
from jaxrl_par.bridge.reports import Times
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.types import State


class Lock(store.Store):
    """One at a time. Reading needs no lock: a state is never changed, but replaced."""

    def __init__(self, supervisor: Supervisor, shards: Shards, state: State):
        super().__init__(supervisor, shards)
        # Of a thread: see `_release`.
        self._mutex = threading.RLock()
        self._current = store.Current(state)

    def pull(self, worker: int) -> store.Pulled:
        # Read once: the next push may replace it between two reads.
        current = self._current
        return store.Pulled(current.state, (current.pushes,), (current.version,))

    def push(self, worker: int, push: store.Push, times: Times) -> None:
        try:
            # Inside `try`: a thread that is killed just after it got the lock gives it
            # back; one that did not get it has nothing to release.
            times.timed("waiting for the lock", self._supervisor.acquire, self._mutex)
            # Still open after this: only who has the mutex pushes.
            self._enter(lambda: not self._is_full(), times)
            times.timed("updating", self._update, worker, push)
        finally:
            self._release()

    @property
    def _pushes(self) -> int:
        return self._current.pushes

    def _drained(self) -> store.Drained:
        current = self._current
        self._current = current._replace(updates=None)
        return store.Drained(current.state, current.in_order(), current.workers)

    def _update(self, worker: int, push: store.Push) -> None:
        current = self._current
        (version,) = push.pulled.versions
        staleness = current.version - version
        done = store.applied(self._shards, current.state, push.given, staleness)
        # The instant of the update: one reference, which is replaced at once.
        self._current = current.after(worker, push, done)
        # Without the lock: the target rises only when the owner has seen it reached.
        if self._is_full():
            self._supervisor.wait(self._told, "leave to tell the owner")

    def _told(self) -> bool:
        # Under `wait`: who is killed at the end of a `with` keeps what it holds.
        self._supervisor.condition.notify_all()
        return True

    def _release(self) -> None:
        """Lets go of it as often as this thread has it: a push that was killed even
        here has left it to the next one."""
        with suppress(RuntimeError):  # not ours any more, or never
            while True:
                self._mutex.release()
