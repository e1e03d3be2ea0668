"""A store that one worker at a time updates."""

import threading
from contextlib import suppress

from jaxrl_par.bridge.report import Times
from jaxrl_par.bridge.shards import Shards
from jaxrl_par.bridge.stores.store import Current, Gate, Pulled, Push, Taken, applied
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.types import State


class Lock(Gate):
    """One at a time. Reading needs no lock: a state is never changed, but replaced."""

    def __init__(self, supervisor: Supervisor, shards: Shards, state: State):
        super().__init__(supervisor)
        self._shards = shards
        # Of a thread: see `_release`.
        self._mutex = threading.RLock()
        self._current = Current.new(state)

    def pull(self, worker: int) -> Pulled:
        del worker
        current = self._current
        return Pulled(current.state, (current.pushes,), (current.version,))

    def push(self, worker: int, push: Push, times: Times) -> None:
        try:
            times.timed("waiting for the lock", self._supervisor.acquire, self._mutex)
            times.timed(
                "waiting for the owner", self._supervisor.wait, self._is_open,
                "leave to update",
            )  # fmt: skip
            times.timed("updating", self._update, worker, push)
        finally:
            self._release()

    def take(self) -> Taken:
        self._supervisor.wait(self._is_full, "updates of workers")
        # Nobody writes until the store is opened again.
        current = self._current
        self._current = current.without_updates()
        return Taken(current.state, current.in_order(), current.workers)

    def statistics(self) -> dict[str, float]:
        return {}

    def _is_open(self) -> bool | None:
        return True if self._current.pushes < self._target else None

    def _is_full(self) -> bool | None:
        return None if self._current.pushes < self._target else True

    def _update(self, worker: int, push: Push) -> None:
        current = self._current
        (version,) = push.pulled.versions
        staleness = current.version - version
        done = applied(self._shards, current.state, push.part, staleness)
        self._current = current.after(worker, push, done)
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
