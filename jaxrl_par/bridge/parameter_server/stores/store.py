"""What stores have in common: what goes in, what comes out, and what is kept."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_par.bridge.parameter_server.shards import SCALARS, Shards
from jaxrl_par.bridge.reports import Times
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.loops import Gradient
from jaxrl_par.types import State


class Pulled(NamedTuple):
    """What a worker has read."""

    state: State
    """An agent's state; what neither acting nor gradients read may be older."""
    pushes: tuple[int, ...]
    """How many pushes are in each shard of it, applied or refused."""
    versions: tuple[int, ...]
    """Updates of each shard, without refused ones."""


class Push(NamedTuple):
    """A gradient on its way."""

    given: Gradient
    """The gradient of all parameters."""
    pulled: Pulled
    item: Any
    """What is to be remembered of it."""
    after: Any
    """The worker's state when it made it. The newest of each worker is remembered."""


class Update(NamedTuple):
    """A push that has become one."""

    item: Any
    read: tuple[int, ...]
    """`Pulled.pushes`"""
    metrics: Any
    """Metrics of `asynchronous.apply_stale`; means over shards."""


class Drained(NamedTuple):
    """What came of all pushes until now."""

    state: State
    updates: list[Update]
    """All updates since the last time, in order."""
    workers: dict[int, Any]
    """`Push.after` of each worker's last push."""


class Store(ABC):
    """Shared parameters, and what lets pushes in."""

    def __init__(self, supervisor: Supervisor, shards: Shards):
        self._supervisor = supervisor
        self._shards = shards
        self._target = 0

    @abstractmethod
    def pull(self, worker: int) -> Pulled:
        """The newest parameters, the worker's own pushes among them."""

    @abstractmethod
    def push(self, worker: int, push: Push, times: Times) -> None:
        """Waits to be admitted, then applies the gradient or hands it over."""

    def admit_until(self, target: int) -> None:
        """Lets in pushes until there were so many since the start."""
        with self._supervisor.condition:
            self._target = target
            self._supervisor.condition.notify_all()

    def drain(self) -> Drained:
        """Waits until there were as many pushes as are admitted."""
        self._supervisor.wait(self._is_full, "updates of workers")
        return self._drained()

    def settled(self) -> Drained:
        """What came of all pushes, when the threads of all workers have ended."""
        return self._drained()

    def statistics(self) -> dict[str, float]:
        """What only this kind of store counts."""
        return {}

    def _enter(self, enter: Callable[[], bool], times: Times) -> None:
        """Waits until the owner admits a push, which `enter` does if it is so far."""
        wait = self._supervisor.wait
        times.timed("waiting for the owner", wait, enter, "leave to update")

    @property
    @abstractmethod
    def _pushes(self) -> int:
        """How many are in all shards."""

    @abstractmethod
    def _drained(self) -> Drained:
        """What came of all pushes; no thread writes until more are admitted."""

    def _is_full(self) -> bool:
        return self._pushes >= self._target


MakeStore = Callable[[Supervisor, Shards, State], Store]


class Current(NamedTuple):
    """A shard, replaced as a whole: no thread sees it half updated."""

    state: State
    pushes: int = 0
    version: int = 0
    updates: "_Chain | None" = None
    workers: dict[int, Any] = {}  # noqa: RUF012
    """Never changed, but replaced."""

    def after(self, worker: int, push: Push, done: "Applied") -> "Current":
        """The shard with one more push."""
        return Current(
            done.state,
            self.pushes + 1,
            self.version + done.applied,
            _Chain(Update(push.item, push.pulled.pushes, done.metrics), self.updates),
            self.workers | {worker: push.after},
        )

    def in_order(self) -> list[Update]:
        """The updates, oldest first."""
        updates, chain = [], self.updates
        while chain is not None:
            updates.append(chain.update)
            chain = chain.before
        return updates[::-1]


class _Chain(NamedTuple):
    """Updates, newest first. Part of `Current`, so that no update is in one of both
    and not in the other."""

    update: Update
    before: "_Chain | None"


class Applied(NamedTuple):
    """A shard after a push."""

    state: State
    metrics: Any
    applied: bool
    """False where the gradient was refused."""


def applied(shards: Shards, state: State, given: Gradient, staleness: int) -> Applied:
    """`Shards.apply`, done when this returns, with metrics in numpy."""
    state, values = shards.apply(state, given, np.int32(staleness))
    metrics = dict(zip(SCALARS, np.asarray(values), strict=True))
    used = not (metrics["skipped"] or metrics["rejected"])
    return Applied(jax.block_until_ready(state), metrics, used)


def mean(metrics: list[Any]) -> Any:
    """Over shards; what any of them skipped was skipped."""
    if len(metrics) == 1:
        return metrics[0]
    mean = {n: np.float32(np.mean([x[n] for x in metrics])) for n in metrics[0]}
    return mean | {"skipped": np.max([x["skipped"] for x in metrics])}
