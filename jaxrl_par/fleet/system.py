"""The system of `bridge.actor_learner`, whose actors are in other processes."""

from typing import Any

from jaxrl_par.bridge.actor_learner.system import ActorLearnerSystem, Parts
from jaxrl_par.fleet.cluster import Cluster
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.members import Actors
from jaxrl_par.fleet.processes import Slot
from jaxrl_par.fleet.proxy import FleetActor, Proxy
from jaxrl_par.fleet.published import Published
from jaxrl_par.fleet.recipe import packed, settings
from jaxrl_par.types import Agent, PRNGKey


class Slots:
    """Processes for a number of members, and the members that are in them."""

    def __init__(
        self, cluster: Cluster, config: FleetConfig, recipe: bytes, num_members: int,
        name: str,
    ):  # fmt: skip
        """`name`: what a member is called."""
        size = config.threads_per_process
        given = settings(config.xla_threads, shares_disk=cluster.is_local), recipe
        self._size = size
        self._slots = []
        for first in range(0, num_members, size):
            last = min(first + size, num_members) - 1
            called = f"{name} {first}" if first == last else f"{name}s {first}-{last}"
            self._slots.append(Slot(cluster, config, called, *given))
        self._proxies: dict[int, Proxy] = {}

    def place(self, index: int) -> dict[str, Any]:
        """Where a member is, as arguments of `Proxy`."""
        slot, thread = divmod(index, self._size)
        return {"slot": self._slots[slot], "thread": thread}

    def add(self, proxy: Any) -> Any:
        """Notes a member, which may take the place of another one."""
        if before := self._proxies.get(proxy.index):
            before.succeeded()
        self._proxies[proxy.index] = proxy
        return proxy


class FleetSystem(ActorLearnerSystem):
    """Proxies of actors, the parameters that they pull, and a learner here."""

    def __init__(
        self, parts: Parts, fleet: FleetConfig, key: PRNGKey, num_past_params: int
    ):
        """
        Raises:
          RefusedError: what is to be sent cannot be, or as `Cluster`.
        """
        super().__init__(parts, key, num_past_params)
        threads = parts.config
        supervision = threads.supervision
        arguments = (
            parts.make_env, only_acting(parts.learner.actor), parts.unroll_length,
            threads.num_actors, supervision.check_bounds, num_past_params + 1,
        )  # fmt: skip
        recipe = packed(Actors, arguments, key)
        size = fleet.threads_per_process
        processes = -(-threads.num_actors // size)
        self._cluster = Cluster(fleet, processes * fleet.cpus_per_process)
        try:
            self.published = Published(self._cluster, supervision.restarts)
            self._slots = Slots(
                self._cluster, fleet, recipe, threads.num_actors, "actor"
            )
        except BaseException:
            self._cluster.close()
            raise

    def actor(self, index: int, **options: Any) -> FleetActor:
        """A proxy, still without environments."""
        parts = self.parts
        proxy = FleetActor(
            index, self._root, parts.actor_device, unroll_length=parts.unroll_length,
            published=self.published, exact=parts.config.schedule == "lockstep",
            **self._slots.place(index), **options,
        )  # fmt: skip
        return self._slots.add(proxy)

    def close(self) -> None:
        """Ends all processes."""
        self._cluster.close()


def only_acting(agent: Agent) -> Agent:
    """What acts of an agent: the rest need not be sent."""
    kept = {"initial_carry", "act", "complete", "specs", "reduction"}
    return agent._replace(**dict.fromkeys(set(Agent._fields) - kept, _absent))


def _absent(*_: Any) -> Any:
    raise RuntimeError("an actor in another process only acts")
