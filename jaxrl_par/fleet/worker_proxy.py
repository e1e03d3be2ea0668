"""A worker whose gradients are computed in another process."""

from contextlib import suppress
from typing import Any

import jax

from jaxrl_par.bridge.parameter_server.worker import Computed, Worker
from jaxrl_par.fleet.arrays import on_host, own, own_on
from jaxrl_par.fleet.cluster import LostError
from jaxrl_par.fleet.proxy import Proxy
from jaxrl_par.types import State

_DATA_SECONDS = 60.0
"""For a worker's data to come."""


class FleetWorker(Proxy, Worker):
    """Computes gradients in another process."""

    def __init__(self, *arguments: Any, shards: tuple[str, ...], **options: Any):
        """`shards`: names of those that have a process each."""
        super().__init__(*arguments, **options)
        self._shards = shards

    def contribute(self, state: State) -> Computed:
        """As `HostWorker.contribute`. What the worker keeps of its data is left there:
        see `with_data`."""
        given = on_host(state), self._shards
        item: Computed = self._asked("work", self.next_unroll, *given)
        info = item.info
        self._accept(info.worker, info.generation, info.unroll)
        given = own_on(self._device, item.given)
        self._state = own(item.after)
        info = info._replace(metrics=own(info.metrics), info=own(info.info))
        return Computed(given, info, self._state, item.read)

    def with_data(self, after: Any, before: Any) -> Any:
        """A state that is to be saved, with the data that belong to it.

        Args:
          before: an older one with its data. They stay where newer ones are lost.
        """
        lease, data = self._lease, before.data
        if jax.tree.leaves(data) and lease and self._slot.is_current(lease):
            call = lease.look("data", self.index, int(after.unroll) - 1)
            with suppress(LostError, KeyError):
                if call.ready(_DATA_SECONDS):
                    data = own(call.result())
        return after._replace(data=data)
