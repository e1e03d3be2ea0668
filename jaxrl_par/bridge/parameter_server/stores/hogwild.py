"""A store that all workers update at once."""

from functools import partial

import jax

from jaxrl_par.bridge.parameter_server.shards import Shards
from jaxrl_par.bridge.parameter_server.stores import store
from jaxrl_par.bridge.reports import Times
from jaxrl_par.bridge.shared import Shared
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.measured import Metric
from jaxrl_par.types import State

METRICS = {
    "raced_share": Metric("share of updates", "in which another thread wrote"),
    "lost_updates": Metric("updates", "overwritten by another, mean over arrays"),
    "lost_share": Metric("share of updates", "so lost"),
}


class Hogwild(store.Store):
    """Everybody at once: each worker reads the shared state, computes what its gradient
    makes of it, and adds the change in place. Only the order of updates is counted
    under a lock."""

    def __init__(self, supervisor: Supervisor, shards: Shards, state: State):
        super().__init__(supervisor, shards)
        self._shared = Shared(state)
        self._place = jax.tree.map(lambda x: x.sharding, state)
        self._writing: set[int] = set()
        """Workers that were let in."""
        self._counted = store.Current(())
        """Counts and updates; its state is left empty."""
        self._raced = 0
        self._lost = 0.0

    def pull(self, worker: int) -> store.Pulled:
        # Counted first: what is read may be newer, but never older than it says.
        counted = self._counted
        state = jax.device_put(self._shared.read().state, self._place)
        return store.Pulled(state, (counted.pushes,), (counted.version,))

    def push(self, worker: int, push: store.Push, times: Times) -> None:
        self._enter(partial(self._admit, worker), times)
        try:
            times.timed("updating", self._update, worker, push)
        except BaseException:
            with self._supervisor.condition:
                # Unless it was counted already.
                self._writing.discard(worker)
                self._supervisor.condition.notify_all()
            raise

    @property
    def _pushes(self) -> int:
        return self._counted.pushes

    def _drained(self) -> store.Drained:
        counted = self._counted
        self._counted = counted._replace(updates=None)
        self._lost += self._shared.lost()
        state = jax.device_put(self._shared.read().state, self._place)
        return store.Drained(state, counted.in_order(), counted.workers)

    def statistics(self) -> dict[str, float]:
        # Without the lock: they may be of two moments, which shares hardly show.
        pushes = max(self._counted.pushes, 1)
        return {
            "raced_share": self._raced / pushes,
            "lost_updates": self._lost,
            "lost_share": self._lost / pushes,
        }

    def _admit(self, worker: int) -> bool:
        # Those inside count too, or more would be let in than the owner asked for. This
        # worker is in already if its last push was killed at the door.
        if self._counted.pushes + len(self._writing - {worker}) >= self._target:
            return False
        self._writing.add(worker)
        return True

    def _update(self, worker: int, push: store.Push) -> None:
        (version,) = push.pulled.versions
        # Read again: others have updated it while this worker acted.
        old = self._shared.read()
        # As of now, without the lock: who is counted later makes this no staler.
        staleness = self._counted.version - version
        state = jax.device_put(old.state, self._place)
        done = store.applied(self._shards, state, push.given, staleness)
        raced = self._shared.write(old, jax.device_get(done.state))

        def counted() -> bool:
            self._counted = self._counted.after(worker, push, done._replace(state=()))
            self._writing.discard(worker)
            self._raced += raced
            if self._is_full():
                self._supervisor.condition.notify_all()
            return True

        # Not `with`: who is killed at its end keeps what it holds.
        self._supervisor.wait(counted, "leave to count")
