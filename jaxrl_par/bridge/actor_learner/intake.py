"""What an update begins with: one batch, or as many as the pace says."""

from typing import Protocol, runtime_checkable

from jaxrl_par.bridge.actor_learner.learner import Batch
from jaxrl_par.bridge.actor_learner.stages import Stages
from jaxrl_par.loops.pace import Pace


@runtime_checkable
class Intake(Protocol):
    """Waits for what the next update needs."""

    def take(self) -> list[Batch]:
        """The batches of the next update."""
        ...

    def updated(self, ready: bool) -> int | None:
        """After an update; `ready` says whether it was from enough. Returns the debt
        with which a run goes on, None if it has none."""
        ...

    def samples_per_insert(self) -> float | None:
        """As `Pace.samples_per_insert`; None without a pace."""
        ...


class OneBatch:
    """Each update waits for a batch of its own."""

    def __init__(self, stages: Stages):
        self._stages = stages

    def take(self) -> list[Batch]:
        return [self._stages.take_batch()]

    def updated(self, ready: bool) -> None:
        return None

    def samples_per_insert(self) -> None:
        return None


class Paced:
    """Takes what is there, and waits only where the pace says."""

    def __init__(self, stages: Stages, pace: Pace, most: int):
        """`most`: batches in an update that it did not have to wait for; else a learner
        whose actors are faster would never come to learn."""
        self._stages = stages
        self._pace = pace
        self._most = most

    def take(self) -> list[Batch]:
        pace, batches = self._pace, []
        while not (pace.may_update() and (pace.ready or batches)):
            batches.append(self._stages.take_batch())
            pace.insert()
        while len(batches) < self._most and pace.may_insert():
            batch = self._stages.batch_if_there()
            if batch is None:
                break
            batches.append(batch)
            pace.insert()
        return batches

    def updated(self, ready: bool) -> int:
        self._pace.update()
        self._pace.ready = ready
        return self._pace.debt

    def samples_per_insert(self) -> float | None:
        return self._pace.samples_per_insert()
