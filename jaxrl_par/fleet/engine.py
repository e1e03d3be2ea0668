"""`ActorLearnerEngine` with its actors in other processes."""

from collections.abc import Callable
from dataclasses import replace

from jaxrl_par.bridge.actor_learner.engine import ActorLearnerEngine
from jaxrl_par.bridge.actor_learner.queue import Publisher, Schedule
from jaxrl_par.bridge.actor_learner.report import ActorLearnerReport
from jaxrl_par.bridge.actor_learner.system import Parts
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.published import HeldPublisher
from jaxrl_par.fleet.system import FleetSystem
from jaxrl_par.types import PRNGKey


class FleetEngine(ActorLearnerEngine):
    """A thread for each actor waits for its process; all else is as in threads."""

    _system: FleetSystem

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
        if report is None:
            return None
        return replace(report, restarts=report.restarts + self._system.published.lost)

    def _make_system(self, key: PRNGKey) -> FleetSystem:
        past = self._config.num_past_params
        system = FleetSystem(self._parts, self._fleet, key, past)
        self._resources.callback(system.close)
        return system

    def _make_publisher(self, keep: int) -> Publisher:
        return HeldPublisher(self._supervisor, keep, self._system.published)
