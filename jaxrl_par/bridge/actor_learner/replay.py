"""A recorded run once more, in one thread: the same unrolls, in the same order.

Each unroll depends only on its actor's environments and keys and on the parameters that
acted, so the recorded versions decide everything. On CPU the replay ends in the bits of
the run that was recorded, one distiller's lessons included: the versions that it makes
do not depend on when it makes them.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax

from jaxrl_par.bridge.actor_learner import distillers
from jaxrl_par.bridge.actor_learner.learner import Batch, stacked
from jaxrl_par.bridge.actor_learner.system import ActorLearnerSystem, Local, Parts
from jaxrl_par.bridge.central.desk import DirectDesk
from jaxrl_par.bridge.central.place import Request
from jaxrl_par.bridge.replay import ReplayEngine
from jaxrl_par.bridge.shared import Shared
from jaxrl_par.bridge.unrolled import AnyActor, Unrolled
from jaxrl_par.loops import Run
from jaxrl_par.loops.records import Entry, RecordError
from jaxrl_par.types import Metrics, Params, PRNGKey


class ActorLearnerReplay(ReplayEngine[AnyActor]):
    """An engine that repeats a record of an `ActorLearnerEngine`."""

    def __init__(self, parts: Parts, schedule: Sequence[Sequence[Entry]]):
        super().__init__(parts.config.num_actors, schedule, name="actor")
        self._parts = parts
        entries = [entry for update in schedule for entry in update]
        self._uses = Counter(v for entry in entries for v in set(entry.versions))
        self._params: dict[int, Params] = {}

    def init(self, key: PRNGKey) -> Run:
        self._system = ActorLearnerSystem(self._parts, key)
        if self._parts.config.inference == "central":
            self._system.desk = DirectDesk(self._system.place(), self._choose)
        run = self._system.new_run(self._actors())
        distils = self._parts.config.num_distillers > 0
        self._student = Shared(self._system.student(run.learner)) if distils else None
        self._shown = run.local.shown
        self._keep(0, run)
        return run

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        system, metrics = self._system, []
        schedule: Sequence[Sequence[Entry]] = self._next(num_updates)
        local: Local = run.local
        states = dict(enumerate(local.actors))
        run = run._replace(local=local.data)
        for entries in schedule:
            acted = self._acted(entries)
            unrolls = [acted[entry] for entry in entries if not entry.dropped]
            counted = system.learner.count(unrolls, self._update)
            run, learned = self._learn(run, self._batches(unrolls))
            metrics.append(learned | counted)
            states |= {item.actor: item.after for item in acted.values()}
            self._update += 1
            self._keep(self._update, run)
        local = Local(tuple(states.values()), (), run.local, shown=self._shown)
        return system.with_local(run, local), stacked(metrics)

    def _actors(self) -> Sequence[Any]:
        """All of them, with environments."""
        return self._start(self._system)

    def _acted(self, entries: Sequence[Entry]) -> dict[Entry, Unrolled]:
        """The unrolls of an update, those that nobody learned from among them."""
        # Of each actor in their order.
        return {x: self._unroll(x) for x in sorted(entries, key=lambda x: x.unroll)}

    def _batches(self, unrolls: list[Unrolled]) -> list[Batch]:
        """As the uploader made them.

        Raises:
          RecordError: they make no whole batches, or not one where it must be one.
        """
        config = self._parts.config
        size, number = config.batch, len(unrolls)
        known = number == size or (config.is_decoupled and number % size == 0)
        if not known:
            raise RecordError(
                f"update {self._update} of the record is of {number} unrolls, and a"
                f" batch of {size}"
            )
        upload = self._system.learner.upload
        return [upload(unrolls[i : i + size]) for i in range(0, number, size)]

    def _learn(self, run: Run, batches: list[Batch]) -> tuple[Run, Metrics]:
        learner, student = self._system.learner, self._student
        run = learner.shown(run, self._shown)
        run, learned, lessons = learner.update(run, batches)
        if student is None:
            return run, learned
        if self._system.shows:
            self._shown = student.read().state
        teach = partial(distillers.learn, student, learner.distil, lessons)
        taught = [teach(i) for i in range(jax.tree.leaves(lessons)[0].shape[0])]
        now = student.read().state
        run, (learned,) = learner.distilled(run, now, [learned], [taught])
        return run, learned

    def _unroll(self, entry: Entry):
        actor = self._member(entry.actor, entry.generation, entry.unroll)
        self._refuse(entry)
        self._entry = entry
        item = actor.unroll(self._params[entry.version], entry.version)
        for version in set(entry.versions):
            self._uses[version] -= 1
            if not self._uses[version]:
                del self._params[version]
        return item

    def _refuse(self, entry: Entry) -> None:
        """
        Raises:
          RecordError: what acted cannot be had.
        """
        for version in entry.versions:
            if version not in self._params:
                raise RecordError(
                    f"update {self._update} of the record wants version {version};"
                    f" there are {sorted(self._params)}"
                )
        if entry.runs and self._parts.config.inference != "central":
            raise RecordError(
                f"update {self._update} of the record is of several versions in one"
                " unroll, as inference = central acts, not local"
            )
        rows = sum(count for _, count in entry.runs)
        if entry.runs and rows != self._parts.unroll_length:
            raise RecordError(
                f"update {self._update} of the record is of {rows} rows, and an unroll"
                f" of {self._parts.unroll_length}"
            )

    def _choose(self, request: Request) -> tuple[int, Params]:
        """Who acted when the run was recorded."""
        version = self._entry.version_at(request.row)
        return version, self._params[version]

    def _keep(self, version: int, run: Run) -> None:
        if self._uses[version]:
            self._params[version] = self._system.actor_params(run.learner)
