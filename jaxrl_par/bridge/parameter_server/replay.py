"""A recorded run of workers once more, in one thread: the same gradients, in the same
order, each at the parameters that its worker had read.

A gradient depends on its worker's environments and keys and on the parameters that it
read, and a shard's updates on their order alone. So the runs of `Lock` and `Server`
come out in the same bits. Those of `Hogwild` come out as they would have, had each
update been done at once.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax

from jaxrl_par.bridge.parameter_server.stores import Drained, Update
from jaxrl_par.bridge.parameter_server.stores.store import applied, mean
from jaxrl_par.bridge.parameter_server.system import Parts, WorkerSystem
from jaxrl_par.bridge.parameter_server.worker import Computed, Worker
from jaxrl_par.bridge.replay import ReplayEngine
from jaxrl_par.loops import Run
from jaxrl_par.loops.records import RecordError, Turn
from jaxrl_par.types import Metrics, PRNGKey, State


class WorkerReplay(ReplayEngine[Worker]):
    """An engine that repeats a record of a `ParameterServerEngine`."""

    def __init__(self, parts: Parts, turns: Sequence[Turn]):
        super().__init__(parts.config.num_workers, turns, name="worker")
        self._parts = parts

    def init(self, key: PRNGKey) -> Run:
        self._system = WorkerSystem(self._parts, key)
        workers = self._start(self._system)
        run = self._system.new_run(workers)
        self._shards = self._system.shards(run.learner)
        state = jax.device_put(run.learner, self._parts.device)
        self._system.compile(workers[0], self._shards, state)
        num_shards = self._parts.config.num_shards
        turns: Sequence[Turn] = self._schedule
        if turns and len(turns[0].read) != num_shards:
            raise RecordError(
                f"the record is of {len(turns[0].read)} shards, asked for {num_shards}"
            )
        shards = range(num_shards)
        self._uses = [Counter(x.read[j] for x in turns) for j in shards]
        self._past: list[dict[int, tuple[State, int]]] = [{} for _ in shards]
        self._current = [(x, 0) for x in self._shards.split(state)]
        self._keep(0)
        return run

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        updates, workers = [], {}
        for turn in self._next(num_updates):
            computed, metrics = self._turned(turn)
            updates.append(Update(computed.info, turn.read, metrics))
            workers[turn.worker] = computed.after
            self._update += 1
            self._keep(self._update)
        state = self._shards.join([x for x, _ in self._current])
        return self._system.after(run, Drained(state, updates, workers))

    def _turned(self, turn: Turn) -> tuple[Computed, Any]:
        """What the worker computed, and the metrics of its update."""
        worker = self._member(turn.worker, turn.generation, turn.unroll)
        if not all(n in past for n, past in zip(turn.read, self._past, strict=True)):
            raise RecordError(
                f"update {self._update} of the record wants parameters after"
                f" {turn.read} updates, which are not there"
            )
        read = [past[n] for n, past in zip(turn.read, self._past, strict=True)]
        computed = worker.contribute(self._shards.join([x for x, _ in read]))
        metrics = []
        for j, part in enumerate(self._shards.divide(computed.given)):
            shard, version = self._current[j]
            update = applied(self._shards, shard, part, version - read[j][1])
            self._current[j] = (update.state, version + update.applied)
            metrics.append(update.metrics)
            self._uses[j][turn.read[j]] -= 1
            if not self._uses[j][turn.read[j]]:
                del self._past[j][turn.read[j]]
        return computed, mean(metrics)

    def _keep(self, turn: int) -> None:
        for j, current in enumerate(self._current):
            if self._uses[j][turn]:
                self._past[j][turn] = current
