"""Parameters that many workers read and write: what differs between A3C's relatives.

A worker pulls parameters, computes a gradient, and pushes it. Who applies it, and who
waits for whom, is the store's affair:

    Lock       the worker itself, one at a time, under a mutex around the optimizer step
    Hogwild    the worker itself, in place and with no lock at all
    Server     k threads, each for its shard of the parameters, all in the same order

A push becomes an update at one instant, at which it either has not happened at all or
can no more be lost: a worker that is killed in the middle of it takes its own gradient
with it, and nothing else. (Hogwild's writes have no such instant. That is its price.)

Whoever pushed sees that in its next pull. So a single worker computes, with any store,
what the synchronous program does.

Sources: Mnih et al., arXiv:1602.01783; Niu et al., arXiv:1106.5730; Nair et al.,
arXiv:1507.04296, section 4.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from jaxrl_par.bridge.report import Times
from jaxrl_par.bridge.shards import METRICS, Shards
from jaxrl_par.bridge.shared import Shared
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.types import Grads, State


class Pulled(NamedTuple):
    """What a worker has read."""

    state: State
    """Of an agent; what neither acting nor gradients read may be older."""
    pushes: tuple[int, ...]
    """How many pushes are in each shard of it, applied or refused."""
    versions: tuple[int, ...]
    """Updates of each shard, without refused ones."""


class Push(NamedTuple):
    """A gradient on its way, and what is to be remembered of it."""

    grads: Grads
    pulled: Pulled
    item: Any


class Update(NamedTuple):
    """A push that has become one."""

    push: Push
    metrics: Any
    """Of `asynchronous.absorb`; means over shards."""


@runtime_checkable
class Store(Protocol):
    """Shared parameters."""

    def pull(self, worker: int) -> Pulled:
        """The newest parameters, the worker's own pushes among them."""
        ...

    def push(self, worker: int, push: Push, times: Times) -> None:
        """Waits until the store is open, then applies the gradient or hands it over."""
        ...

    def open(self, target: int) -> None:
        """Lets in pushes until there were so many."""
        ...

    def take(self) -> tuple[State, list[Update]]:
        """Waits until there were as many pushes as were let in; the state after them,
        and the updates since the last call, in order."""
        ...

    def statistics(self) -> dict[str, float]:
        """What only this kind of store counts."""
        ...


class _Current(NamedTuple):
    """A shard, replaced as a whole: nobody sees it half updated."""

    state: State
    pushes: int
    version: int
    updates: "_Chain | None"


class _Chain:
    """Updates, newest first. Part of `_Current`, so that no update is in one of both
    and not in the other."""

    def __init__(self, update: Update, before: "_Chain | None"):
        self.update = update
        self.before = before


class Absorbed(NamedTuple):
    """A shard after a push."""

    state: State
    metrics: Any
    applied: bool
    """Or refused."""


def absorbed(shards: Shards, state: State, grads: Grads, staleness: int) -> Absorbed:
    """`Shards.absorb`, done when this returns, with metrics in numpy."""
    state, values = shards.absorb(state, grads, np.int32(staleness))
    metrics = dict(zip(METRICS, np.asarray(values), strict=True))
    applied = not (metrics["skipped"] or metrics["rejected"])
    return Absorbed(jax.block_until_ready(state), metrics, applied)


def _after(current: _Current, done: Absorbed, push: Push) -> _Current:
    """A shard after one more push."""
    chain = _Chain(Update(push, done.metrics), current.updates)
    version = current.version + done.applied
    return _Current(done.state, current.pushes + 1, version, chain)


class Lock:
    """One at a time. Reading needs no lock: a state is never changed, but replaced."""

    def __init__(self, supervisor: Supervisor, shards: Shards, state: State):
        self._supervisor = supervisor
        self._shards = shards
        # Of a thread: see `_release`.
        self._mutex = threading.RLock()
        self._current = _Current(state, 0, 0, None)
        self._target = 0

    def pull(self, worker: int) -> Pulled:
        del worker
        current = self._current
        return Pulled(current.state, (current.pushes,), (current.version,))

    def push(self, worker: int, push: Push, times: Times) -> None:
        del worker
        try:
            times.timed("waiting for the lock", self._supervisor.acquire, self._mutex)
            times.timed(
                "waiting for the owner", self._supervisor.wait, self._is_open,
                "leave to update",
            )  # fmt: skip
            times.timed("updating", self._update, push)
        finally:
            self._release()

    def open(self, target: int) -> None:
        with self._supervisor.condition:
            self._target = target
            self._supervisor.condition.notify_all()

    def take(self) -> tuple[State, list[Update]]:
        self._supervisor.wait(self._is_full, "updates of workers")
        # Nobody writes until the store is opened again.
        current = self._current
        self._current = current._replace(updates=None)
        return current.state, _in_order(current.updates)

    def statistics(self) -> dict[str, float]:
        return {}

    def _is_open(self) -> bool | None:
        return True if self._current.pushes < self._target else None

    def _is_full(self) -> bool | None:
        return None if self._current.pushes < self._target else True

    def _update(self, push: Push) -> None:
        current = self._current
        (version,) = push.pulled.versions
        staleness = current.version - version
        done = absorbed(self._shards, current.state, push.grads, staleness)
        self._current = _after(current, done, push)
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


class Hogwild:
    """Everybody at once: each worker reads the shared state, computes what its gradient
    makes of it, and adds the change in place. Only the order of updates is counted
    under a lock."""

    def __init__(self, supervisor: Supervisor, shards: Shards, state: State):
        self._supervisor = supervisor
        self._shards = shards
        self._shared = Shared(state)
        self._place = jax.tree.map(lambda x: x.sharding, state)
        self._writing: set[int] = set()
        """Workers that were let in."""
        self._target = 0
        self._counted = _Current((), 0, 0, None)
        """Without the state."""
        self._raced = 0
        self._lost = 0.0

    def pull(self, worker: int) -> Pulled:
        del worker
        # Counted first: what is read may be newer, but never older than it says.
        counted = self._counted
        state = jax.device_put(self._shared.read().state, self._place)
        return Pulled(state, (counted.pushes,), (counted.version,))

    def push(self, worker: int, push: Push, times: Times) -> None:
        admit = partial(self._admit, worker)
        times.timed(
            "waiting for the owner", self._supervisor.wait, admit, "leave to update"
        )
        try:
            times.timed("updating", self._update, worker, push)
        except BaseException:
            with self._supervisor.condition:
                # Unless it was counted already.
                self._writing.discard(worker)
                self._supervisor.condition.notify_all()
            raise

    def open(self, target: int) -> None:
        with self._supervisor.condition:
            self._target = target
            self._supervisor.condition.notify_all()

    def take(self) -> tuple[State, list[Update]]:
        self._supervisor.wait(self._is_full, "updates of workers")
        updates = _in_order(self._counted.updates)
        self._counted = self._counted._replace(updates=None)
        self._lost += self._shared.lost()
        state = jax.device_put(self._shared.read().state, self._place)
        return state, updates

    def statistics(self) -> dict[str, float]:
        pushes = max(self._counted.pushes, 1)
        return {
            "raced_share": self._raced / pushes,
            "lost_updates": self._lost,
            "lost_share": self._lost / pushes,
        }

    def _admit(self, worker: int) -> bool | None:
        # It is in already if its last push was killed at the door.
        if self._counted.pushes + len(self._writing - {worker}) >= self._target:
            return None
        self._writing.add(worker)
        return True

    def _is_full(self) -> bool | None:
        return None if self._counted.pushes < self._target else True

    def _update(self, worker: int, push: Push) -> None:
        (version,) = push.pulled.versions
        old = self._shared.read()
        staleness = self._counted.version - version
        state = jax.device_put(old.state, self._place)
        done = absorbed(self._shards, state, push.grads, staleness)
        raced = self._shared.write(old, jax.device_get(done.state))

        def counted() -> bool:
            self._counted = _after(self._counted, done._replace(state=()), push)
            self._writing.discard(worker)
            self._raced += raced
            if self._is_full():
                self._supervisor.condition.notify_all()
            return True

        # Not `with`: who is killed at its end keeps what it holds.
        self._supervisor.wait(counted, "leave to count")


class Server:
    """A thread for each shard. Pushes wait in one line, which every shard works through
    at its own pace: its queue is the part of the line that it has not done yet."""

    def __init__(self, supervisor: Supervisor, shards: Shards, state: State):
        self._supervisor = supervisor
        self._shards = shards
        self._line: list[tuple[Push, list[Grads]]] = []
        """All pushes since the last `take`."""
        self._first = 0
        """Number of the first of them."""
        self._current = [_Current(x, 0, 0, None) for x in shards.split(state)]
        self._own = {}
        """Number of the push after the newest of each worker."""
        self._target = 0
        self._depths = self._taken = 0
        clock = supervisor.clock
        self.times = [Times(clock) for _ in self._current]
        """Of the shards' threads."""

    def start(self) -> None:
        for index in range(len(self._current)):
            self._supervisor.start(f"shard {index}", partial(self._serve, index))

    def pull(self, worker: int) -> Pulled:
        def seen() -> list[_Current] | None:
            own = self._own.get(worker, 0)
            current = list(self._current)
            return current if min(x.pushes for x in current) >= own else None

        current = self._supervisor.wait(seen, "shards")
        state = self._shards.join([x.state for x in current])
        pushes = tuple(x.pushes for x in current)
        return Pulled(state, pushes, tuple(x.version for x in current))

    def push(self, worker: int, push: Push, times: Times) -> None:
        grads = jax.block_until_ready(self._shards.divide(push.grads))

        def handed_over() -> bool | None:
            number = self._first + len(self._line)
            if number >= self._target:
                return None
            self._line.append((push, grads))
            self._own[worker] = number + 1
            self._supervisor.condition.notify_all()
            return True

        times.timed(
            "waiting for the owner", self._supervisor.wait, handed_over,
            "leave to update",
        )  # fmt: skip

    def open(self, target: int) -> None:
        with self._supervisor.condition:
            self._target = target
            self._supervisor.condition.notify_all()

    def take(self) -> tuple[State, list[Update]]:
        def full() -> bool | None:
            return (
                True if all(x.pushes >= self._target for x in self._current) else None
            )

        self._supervisor.wait(full, "updates of workers")
        with self._supervisor.condition:
            self._first += len(self._line)
            self._line.clear()
        chains = [_in_order(x.updates) for x in self._current]
        self._current = [x._replace(updates=None) for x in self._current]
        updates = [
            Update(parts[0].push, mean([x.metrics for x in parts]))
            for parts in zip(*chains, strict=True)
        ]
        return self._shards.join([x.state for x in self._current]), updates

    def statistics(self) -> dict[str, float]:
        return {"queue_depth": self._depths / max(self._taken, 1)}

    def _serve(self, index: int) -> None:
        """The life of a shard's thread."""
        times = self.times[index]

        def next_push() -> tuple[Push, list[Grads]] | None:
            done = self._current[index].pushes - self._first
            if done >= len(self._line):
                return None
            self._depths += len(self._line) - done
            self._taken += 1
            return self._line[done]

        while True:
            push, grads = times.timed(
                "waiting for pushes", self._supervisor.wait, next_push, "pushes"
            )
            times.timed("updating", self._update, index, push, grads[index])

    def _update(self, index: int, push: Push, grads: Grads) -> None:
        current = self._current[index]
        staleness = current.version - push.pulled.versions[index]
        done = absorbed(self._shards, current.state, grads, staleness)
        with self._supervisor.condition:
            self._current[index] = _after(current, done, push)
            self._supervisor.condition.notify_all()


MakeStore = Callable[[Supervisor, Shards, State], Store]


def _in_order(chain: _Chain | None) -> list[Update]:
    updates = []
    while chain is not None:
        updates.append(chain.update)
        chain = chain.before
    return updates[::-1]


def mean(metrics: list[Any]) -> Any:
    """Over shards; what any of them skipped was skipped."""
    if len(metrics) == 1:
        return metrics[0]
    mean = {n: np.float32(np.mean([x[n] for x in metrics])) for n in metrics[0]}
    return mean | {"skipped": np.max([x["skipped"] for x in metrics])}
