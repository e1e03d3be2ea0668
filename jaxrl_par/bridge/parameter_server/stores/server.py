"""A store with threads of its own: a parameter server."""

from collections import deque
from functools import partial
from typing import Any, NamedTuple

import jax

from jaxrl_par.bridge.parameter_server.shards import Shards
from jaxrl_par.bridge.parameter_server.stores import store
from jaxrl_par.bridge.reports import Times
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.measured import Metric
from jaxrl_par.types import State

METRICS = {
    "queue_depth": Metric("pushes", "that a shard had before one"),
}


class _Waiting(NamedTuple):
    """A push in the line."""

    worker: int
    push: store.Push
    parts: list[Any]
    """What each shard is given: its part of the gradient, as `Server.divided`."""


class Server(store.Store):
    """A thread for each shard. Pushes wait in one line, which every shard works through
    at its own pace: its queue is the part of the line that it has not done yet."""

    def __init__(self, supervisor: Supervisor, shards: Shards, state: State):
        super().__init__(supervisor, shards)
        self._line: deque[_Waiting] = deque()
        """Pushes that not all shards have done."""
        self._first = 0
        """Number of the first of them."""
        self._current = [store.Current(x) for x in shards.split(state)]
        self._own = {}
        """Number of the push after the newest of each worker."""
        self._depths = self._taken = 0
        self.times = [Times(supervisor.clock) for _ in self._current]
        """Times of the shards' threads."""

    def start(self) -> None:
        for index in range(len(self._current)):
            self._supervisor.start(f"shard {index}", partial(self._serve, index))

    def pull(self, worker: int) -> store.Pulled:
        # Shards are at different pushes; a worker only waits for its own in each.
        def seen() -> list[store.Current] | None:
            own = self._own.get(worker, 0)
            current = list(self._current)
            return current if min(x.pushes for x in current) >= own else None

        current = self._supervisor.wait(seen, "shards")
        pushes = tuple(x.pushes for x in current)
        versions = tuple(x.version for x in current)
        return store.Pulled(self.shown(current), pushes, versions)

    def push(self, worker: int, push: store.Push, times: Times) -> None:
        parts = self.divided(worker, push)

        def hand_over() -> bool:
            number = self._first + len(self._line)
            if number >= self._target:
                return False
            # First: who is killed in between must not wait for what is not in the line.
            self._line.append(_Waiting(worker, push, parts))
            self._own[worker] = number + 1
            self._supervisor.condition.notify_all()
            return True

        self._enter(hand_over, times)

    def shown(self, current: list[store.Current]) -> State:
        """What a worker is given that pulls."""
        return self.joined(current)

    def joined(self, current: list[store.Current]) -> State:
        """The whole state."""
        return self._shards.join([x.state for x in current])

    def divided(self, worker: int, push: store.Push) -> list[Any]:
        """For each shard what `applied` is given."""
        return jax.block_until_ready(self._shards.divide(push.given))

    def applied(
        self, index: int, state: State, part: Any, staleness: int
    ) -> store.Applied:
        """A shard after a push."""
        return store.applied(self._shards, state, part, staleness)

    def settled(self) -> store.Drained:
        # The shards' threads have ended, too, each at another push of the line.
        for index, current in enumerate(self._current):
            for waiting in list(self._line)[current.pushes - self._first :]:
                self._update(index, waiting)
        return super().settled()

    @property
    def _pushes(self) -> int:
        return min(x.pushes for x in self._current)

    def _drained(self) -> store.Drained:
        current = self._current
        self._current = [x._replace(updates=None) for x in current]
        updates = [
            parts[0]._replace(metrics=store.mean([x.metrics for x in parts]))
            for parts in zip(*(x.in_order() for x in current), strict=True)
        ]
        return store.Drained(self.joined(current), updates, current[0].workers)

    def statistics(self) -> dict[str, float]:
        return {"queue_depth": self._depths / max(self._taken, 1)}

    def _serve(self, index: int) -> None:
        """The life of a shard's thread."""
        times = self.times[index]

        def next_push() -> _Waiting | None:
            done = self._current[index].pushes - self._first
            if done >= len(self._line):
                return None
            self._depths += len(self._line) - done
            self._taken += 1
            return self._line[done]

        while True:
            waiting = times.timed(
                "waiting for pushes", self._supervisor.wait, next_push, "pushes"
            )
            times.timed("updating", self._update, index, waiting)

    def _update(self, index: int, waiting: _Waiting) -> None:
        worker, push, parts = waiting
        current = self._current[index]
        staleness = current.version - push.pulled.versions[index]
        # Outside the lock: no other thread writes this shard, and they need not wait.
        done = self.applied(index, current.state, parts[index], staleness)
        with self._supervisor.condition:
            self._current[index] = current.after(worker, push, done)
            # Only the slowest shard takes a push out of the line: the others are
            # ahead, and find their place by its number.
            if self._first < self._pushes:
                self._line.popleft()
                self._first += 1
            self._supervisor.condition.notify_all()
