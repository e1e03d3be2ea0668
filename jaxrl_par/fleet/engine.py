"""The engines of the bridge, with their members in other processes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from jaxrl_par.bridge.actor_learner.engine import ActorLearnerEngine
from jaxrl_par.bridge.actor_learner.queue import Publisher, Schedule
from jaxrl_par.bridge.actor_learner.report import ActorLearnerReport
from jaxrl_par.bridge.actor_learner.system import Parts
from jaxrl_par.bridge.generations import system as generations
from jaxrl_par.bridge.generations.engine import GenerationsEngine
from jaxrl_par.bridge.generations.report import GenerationsReport
from jaxrl_par.bridge.parameter_server import stores
from jaxrl_par.bridge.parameter_server import system as parameter_server
from jaxrl_par.bridge.parameter_server.engine import ParameterServerEngine
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.published import HeldPublisher
from jaxrl_par.fleet.shard_store import FarServer
from jaxrl_par.fleet.system import FleetActors, FleetEvaluators, FleetWorkers
from jaxrl_par.types import Params, PRNGKey


class ActorFleetEngine(ActorLearnerEngine):
    """A thread for each actor waits for its process; all else is as in threads."""

    _system: FleetActors

    def __init__(
        self,
        parts: Parts,
        make_schedule: Callable[[int], Schedule],
        fleet: FleetConfig,
    ):
        super().__init__(parts, make_schedule)
        self._fleet = fleet

    def report(self) -> ActorLearnerReport | None:
        report = super().report()
        if report is None or not (published := self._system.published):
            return report
        return replace(report, restarts=report.restarts + published.lost)

    def _make_system(self, key: PRNGKey) -> FleetActors:
        past = self._config.num_past_params
        system = FleetActors(self._parts, self._fleet, key, past)
        self._resources.callback(system.close)
        return system

    def _make_publisher(self, keep: int) -> Publisher:
        if published := self._system.published:
            return HeldPublisher(self._supervisor, keep, published)
        return super()._make_publisher(keep)


class WorkerFleetEngine(ParameterServerEngine):
    """A thread for each worker waits for its process; all else is as in threads."""

    def __init__(
        self,
        parts: parameter_server.Parts,
        make_store: stores.MakeStore,
        fleet: FleetConfig,
    ):
        super().__init__(parts, make_store)
        self._fleet = fleet

    def _make_system(self, key: PRNGKey) -> FleetWorkers:
        system = FleetWorkers(self._parts, self._fleet, key)
        self._resources.callback(system.close)
        if self._parts.config.store == "server":
            self._make_store = partial(FarServer, system)
        return system


class EvaluatorFleetEngine(GenerationsEngine):
    """A thread for each evaluator waits for its process; all else is as in threads."""

    _system: FleetEvaluators

    def __init__(self, parts: generations.Parts, fleet: FleetConfig):
        super().__init__(parts)
        self._fleet = fleet

    def report(self) -> GenerationsReport | None:
        report = super().report()
        if report is None:
            return None
        return replace(report, restarts=report.restarts + self._system.published.lost)

    def _publish(self, generation: int, params: Params) -> None:
        self._system.published.publish(generation, params, [generation])

    def _make_system(self, key: PRNGKey) -> FleetEvaluators:
        system = FleetEvaluators(self._parts, self._fleet, key)
        self._resources.callback(system.close)
        return system
