"""A recorded run of generations once more, in one thread.

What a part gives depends on the parameters and its number. So it is enough to know
which parts entered.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxrl_par.bridge.generations.evaluator import Evaluator
from jaxrl_par.bridge.generations.system import EvaluatorSystem, Parts
from jaxrl_par.bridge.replay import ReplayEngine
from jaxrl_par.loops import Run
from jaxrl_par.loops.generations import Played
from jaxrl_par.loops.records import Entry, RecordError
from jaxrl_par.types import Metrics, PRNGKey


class GenerationsReplay(ReplayEngine[Evaluator]):
    """An engine that repeats a record of a `GenerationsEngine`."""

    def __init__(self, parts: Parts, schedule: Sequence[list[Entry]]):
        super().__init__(1, schedule, name="worker")
        self._parts = parts

    def init(self, key: PRNGKey) -> Run:
        self._system = EvaluatorSystem(self._parts, key)
        return self._system.new_run(self._start(self._system))

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        done: list[Any] = []
        for entries in self._next(num_updates):
            run, metrics = self._system.learned(run, self._played(run, entries))
            done.append(metrics)
            self._update += 1
        return run, jax.tree.map(lambda *xs: np.stack(xs), *done)

    def _played(self, run: Run, entries: list[Entry]) -> list[Played]:
        (worker,) = self._members
        config = self._parts.config
        tasks = self._system.tasks(run, self._system.params(run))
        numbers = [x.unroll for x in entries]
        known = set(numbers) <= set(range(len(tasks)))
        if len(set(numbers)) != config.quorum or not known:
            raise RecordError(
                f"update {self._update} of the record has parts {numbers}, and"
                f" {config.quorum} of {config.num_parts} are learned from"
            )
        if any(x.version != self._update for x in entries):
            raise RecordError(
                f"update {self._update} of the record is of another generation"
            )
        played = [worker.evaluate(tasks[number]) for number in numbers]
        return [x for x in played if x is not None]
