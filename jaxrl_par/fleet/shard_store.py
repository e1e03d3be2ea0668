"""The driver's side of shards in processes: who pushed, in one line for all of them."""

from typing import Any

from jaxrl_par.bridge.parameter_server.shards import Shards
from jaxrl_par.bridge.parameter_server.stores import Drained, Push, Server
from jaxrl_par.bridge.parameter_server.stores.store import Applied, Current
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.fleet.arrays import own_on
from jaxrl_par.fleet.cluster import LostError
from jaxrl_par.fleet.processes import TICK
from jaxrl_par.fleet.system import FleetWorkers
from jaxrl_par.types import State


class FarServer(Server):
    """A thread for each shard, which has its process do what the shard's thread does in
    `Server`."""

    def __init__(
        self, system: FleetWorkers, supervisor: Supervisor, shards: Shards, state: State
    ):
        super().__init__(supervisor, shards, state)
        parts = [x.state for x in self._current]
        self._leases = system.started_shards(state, parts, supervisor.check)
        self._device = system.parts.device
        self._current = [Current(()) for _ in parts]

    def shown(self, current: list[Current]) -> State:
        """Nothing: workers read from the shards."""
        return ()

    def joined(self, current: list[Current]) -> State:
        reads = [self._asked(i, "read") for i in range(len(current))]
        return self._shards.join([own_on(self._device, x.state) for x in reads])

    def divided(self, worker: int, push: Push) -> list[Any]:
        """Whose gradient, and which: the worker has left it with the shards."""
        return [(worker, push.item.unroll)] * len(self._leases)

    def applied(self, index: int, state: State, part: Any, staleness: int) -> Applied:
        return Applied((), *self._asked(index, "apply", *part, staleness))

    def settled(self) -> Drained:
        """Nothing: what shards had is lost with their processes."""
        return Drained((), [], {})

    def _asked(self, index: int, method: str, *arguments: Any) -> Any:
        lease = self._leases[index]
        call = lease.handle.call(method, *arguments)
        while not call.ready(TICK):
            self._supervisor.check()
        try:
            return call.result()
        except LostError as error:
            told = f"{lease.where} is lost, and what it had: {error}"
            raise LostError(told) from error
