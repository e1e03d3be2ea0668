"""Which process a member is in."""

from typing import Any, TypeVar

from jaxrl_par.fleet.cluster import Cluster
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.processes import Slot
from jaxrl_par.fleet.proxy import Proxy
from jaxrl_par.fleet.recipe import settings

P = TypeVar("P", bound=Proxy)


class Places:
    """Processes for a number of members, and the members that are in them."""

    def __init__(
        self, config: FleetConfig, recipe: bytes, num_members: int, name: str,
        *, without_jax: bool = False,
    ):  # fmt: skip
        """
        Args:
          name: what a member is called.
          without_jax: its processes import none.

        Raises:
          RefusedError: as `Cluster`.
        """
        size = config.threads_per_process
        firsts = range(0, num_members, size)
        self.cluster = Cluster(config, len(firsts) * config.cpus_per_process)
        disk = self.cluster.is_local
        kind = {"shares_disk": disk, "without_jax": without_jax}
        given = settings(config.xla_threads, **kind), recipe
        self._size = size
        self._slots = []
        for first in firsts:
            last = min(first + size, num_members) - 1
            called = f"{name} {first}" if first == last else f"{name}s {first}-{last}"
            self._slots.append(Slot(self.cluster, config, called, *given))
        self._proxies: dict[int, Any] = {}

    def place(self, index: int) -> dict[str, Any]:
        """Where a member is, as arguments of `Proxy`."""
        slot, thread = divmod(index, self._size)
        return {"slot": self._slots[slot], "thread": thread}

    def add(self, proxy: P) -> P:
        """Notes a member, which may take the place of another one."""
        if before := self._proxies.get(proxy.index):
            before.succeeded()
        self._proxies[proxy.index] = proxy
        return proxy

    def proxy(self, index: int) -> Any:
        """The member of that number."""
        return self._proxies[index]

    def close(self) -> None:
        """Ends all processes."""
        self.cluster.close()
