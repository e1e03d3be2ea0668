"""The systems of the bridge, whose members are in other processes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jaxrl_par.bridge.actor_learner import system as actor_learner
from jaxrl_par.bridge.generations import system as generations
from jaxrl_par.bridge.parameter_server import system as parameter_server
from jaxrl_par.bridge.parameter_server.shards import Shards
from jaxrl_par.bridge.parameter_server.stores import Drained
from jaxrl_par.bridge.parameter_server.worker import Worker
from jaxrl_par.bridge.plain import told as plain
from jaxrl_par.bridge.supervision import Activity
from jaxrl_par.bridge.unrolled import AnyActor
from jaxrl_par.envs.host.seeded import Seeded, seed_of
from jaxrl_par.fleet.arrays import on_host
from jaxrl_par.fleet.asking import FarActor, Seat
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.evaluator_proxy import FleetEvaluator
from jaxrl_par.fleet.places import Places
from jaxrl_par.fleet.plain_roles import PlainActing
from jaxrl_par.fleet.processes import Lease, Slot
from jaxrl_par.fleet.proxy import FleetActor
from jaxrl_par.fleet.published import Published
from jaxrl_par.fleet.recipe import packed, settings
from jaxrl_par.fleet.roles import Acting, Contributing, Evaluating
from jaxrl_par.fleet.shards import HeldShard, ShardProcess, as_sent
from jaxrl_par.fleet.stepping_roles import Stepping, as_it_is
from jaxrl_par.fleet.worker_proxy import FleetWorker
from jaxrl_par.loops import Run
from jaxrl_par.loops.generations import is_looked_at
from jaxrl_par.types import Agent, Metrics, PRNGKey, State


class FleetActors(actor_learner.ActorLearnerSystem):
    """Proxies of actors, the parameters that they pull, and a learner here."""

    def __init__(
        self,
        parts: actor_learner.Parts,
        fleet: FleetConfig,
        key: PRNGKey,
        num_past_params: int,
    ):
        """
        Raises:
          RefusedError: what is to be sent cannot be, or as `Cluster`.
        """
        super().__init__(parts, key, num_past_params)
        threads = parts.config
        self._is_seeded = isinstance(parts.make_env, Seeded)
        asks = threads.inference == "central"
        without_jax = self._is_seeded if asks else threads.act_with == "numpy"
        if asks:
            recipe = self._stepping_recipe()
        else:
            recipe = self._plain_recipe() if without_jax else self._recipe(key)
        self._places = Places(
            fleet, recipe, threads.num_actors, "actor", without_jax=without_jax
        )
        self.published: Published | None = None
        if asks:  # parameters stay here
            return
        try:
            restarts = threads.supervision.restarts
            self.published = Published(self._places.cluster, restarts)
        except BaseException:
            self._places.close()
            raise

    def actor(self, index: int, **options: Any) -> AnyActor:
        """A proxy, or an actor here whose environments are elsewhere; without any."""
        parts = self.parts
        if self.published is None:
            seat = self._places.add(self._seat(index, **options))
            return self._asking(FarActor, index, seat, **options)
        proxy = FleetActor(
            index, self._root, parts.actor_device, unroll_length=parts.unroll_length,
            published=self.published, exact=parts.config.is_deterministic,
            **self._places.place(index), **options, **self._told,
        )  # fmt: skip
        return self._places.add(proxy)

    def _seat(self, index: int, activity: Activity) -> Seat:
        parts = self.parts
        spoken = {"key_sent": seed_of, "keys_sent": _no_keys}
        return Seat(
            index, self._root, parts.actor_device, activity,
            unroll_length=parts.unroll_length, **self._places.place(index),
            **(spoken if self._is_seeded else {}),
        )  # fmt: skip

    @property
    def _told(self) -> dict[str, Any]:
        """How what actors without JAX say is understood, and they are spoken to."""
        if self._plain is None:
            return {}
        return {"told": plain.teller(self.parts.learner.actor), "key_sent": seed_of}

    def _recipe(self, key: PRNGKey) -> bytes:
        parts, threads = self.parts, self.parts.config
        arguments = (
            parts.make_env, only_acting(parts.learner.actor), parts.unroll_length,
            threads.num_actors, threads.supervision.check_bounds,
            self.num_past_params + 1,
        )  # fmt: skip
        return packed(Acting, arguments, key)

    def _plain_recipe(self) -> bytes:
        parts, policy = self.parts, self._plain
        assert policy is not None and isinstance(parts.make_env, Seeded)
        arguments = (
            parts.make_env.make, parts.learner.actor.specs, plain.form(policy),
            parts.unroll_length, parts.config.supervision.check_bounds,
            self.num_past_params + 1,
        )  # fmt: skip
        return packed(PlainActing, arguments, plain.words(self._root))

    def _stepping_recipe(self) -> bytes:
        make, specs = self.parts.make_env, self.parts.learner.actor.specs
        if isinstance(make, Seeded):
            return packed(Stepping, (make.make, specs, as_it_is), None)
        return packed(Stepping, (make, specs, on_host), None)

    def close(self) -> None:
        """Ends all processes."""
        self._places.close()


class FleetWorkers(parameter_server.WorkerSystem):
    """Proxies of workers, and the parameters that they share here."""

    def __init__(self, parts: parameter_server.Parts, fleet: FleetConfig, key: PRNGKey):
        """
        Raises:
          RefusedError: as `FleetActors`.
        """
        super().__init__(parts, key)
        config = parts.config
        recipe = packed(
            Contributing, (parts.learner, parts.env, parts.unroll_length, config), key
        )
        self._fleet = fleet
        self._key = key
        self._places = Places(fleet, recipe, config.num_workers, "worker")
        number = config.num_shards if config.store == "server" else 0
        name = self._places.cluster.full_name
        self._shards = tuple(name(f"shard-{i}") for i in range(number))

    def actor(self, index: int, **options: Any) -> FleetWorker:
        """A proxy, still without environments."""
        parts = self.parts
        proxy = FleetWorker(
            index, self._root, parts.device, unroll_length=parts.unroll_length,
            shards=self._shards, **self._places.place(index), **options,
        )  # fmt: skip
        return self._places.add(proxy)

    def started_shards(
        self, state: State, parts: list[State], check: Callable[[], None]
    ) -> list[Lease]:
        """A process for each shard.

        Args:
          parts: of the state, that of each shard.
          check: called while it waits; ends that by raising.
        """
        apply, _, grads, *rest = self.of_shards(state)
        made_from = (apply, as_sent(state), as_sent(grads), *rest)
        config = replace(self._fleet, cpus_per_process=0.0, threads_per_process=1)
        cluster = self._places.cluster
        given = settings(config.xla_threads, shares_disk=cluster.is_local)
        slots = []
        for index, part in enumerate(parts):
            recipe = packed(HeldShard, (made_from, on_host(part)), self._key)
            place = cluster, config, f"shard {index}", given, recipe
            slots.append(Slot(*place, ShardProcess, f"shard-{index}"))
        return [slot.acquire(check) for slot in slots]

    def compile(self, worker: Worker, shards: Shards, state: State) -> None:
        """What shards do that have processes is for those."""
        if not self._shards:
            super().compile(worker, shards, state)

    def after(self, run: Run, drained: Drained) -> tuple[Run, Metrics]:
        before = run.local.workers
        workers = {
            index: self._places.proxy(index).with_data(state, before[index])
            for index, state in drained.workers.items()
        }
        return super().after(run, drained._replace(workers=workers))

    def close(self) -> None:
        """Ends all processes."""
        self._places.close()

    def _compile_gradient(self, worker: Worker, state: State) -> None:
        """That is for the processes, each for itself."""


class FleetEvaluators(generations.EvaluatorSystem):
    """Proxies of evaluators, and the parameters that they pull."""

    def __init__(self, parts: generations.Parts, fleet: FleetConfig, key: PRNGKey):
        """
        Raises:
          RefusedError: as `FleetActors`.
        """
        super().__init__(parts, key)
        sent = replace(parts, agent=only_acting(parts.agent), device=None)
        recipe = packed(Evaluating, (sent, is_looked_at(parts.agent)), key)
        config = parts.config
        self._places = Places(fleet, recipe, config.num_workers, "worker")
        try:
            restarts = config.supervision.restarts
            self.published = Published(self._places.cluster, restarts)
        except BaseException:
            self._places.close()
            raise

    def actor(self, index: int, **options: Any) -> FleetEvaluator:
        """A proxy, still without environments."""
        proxy = FleetEvaluator(
            index, self._root, self.parts.device, unroll_length=0,
            published=self.published, **self._places.place(index), **options,
        )  # fmt: skip
        return self._places.add(proxy)

    def close(self) -> None:
        """Ends all processes."""
        self._places.close()


def only_acting(agent: Agent) -> Agent:
    """What acts of an agent: the rest need not be sent."""
    kept = {"initial_carry", "act", "complete", "specs", "reduction"}
    return agent._replace(**dict.fromkeys(set(Agent._fields) - kept, _absent))


def _no_keys(keys: Any) -> None:
    """Simulators have randomness of their own."""


def _absent(*_: Any) -> Any:
    raise RuntimeError("an actor in another process only acts")
