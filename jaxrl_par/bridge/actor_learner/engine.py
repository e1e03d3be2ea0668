"""Actors in threads, an uploader, perhaps distillers, and the learner in the thread of
its owner."""

import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from jaxrl_par.bridge.acting import count_of
from jaxrl_par.bridge.actor_learner.distillers import Distillers
from jaxrl_par.bridge.actor_learner.intake import Intake, OneBatch, Paced
from jaxrl_par.bridge.actor_learner.kept_unrolls import Keeper
from jaxrl_par.bridge.actor_learner.learner import stacked
from jaxrl_par.bridge.actor_learner.pulls import Pulls
from jaxrl_par.bridge.actor_learner.queue import Publisher, Queue, Schedule
from jaxrl_par.bridge.actor_learner.report import ActorLearnerReport
from jaxrl_par.bridge.actor_learner.stages import Stages
from jaxrl_par.bridge.actor_learner.system import ActorLearnerSystem, Local, Parts
from jaxrl_par.bridge.central.desk import ThreadedDesk
from jaxrl_par.bridge.engine import PoolEngine
from jaxrl_par.bridge.reports import Times
from jaxrl_par.bridge.shared import Shared
from jaxrl_par.bridge.unrolled import AnyActor, Unrolled
from jaxrl_par.loops import Run
from jaxrl_par.loops.records import Entry
from jaxrl_par.types import Metrics, PRNGKey


class _Made(NamedTuple):
    """What is whole in the middle of `advance`."""

    run: Run
    """Its local part is the learner's data."""
    version: int
    states: dict[int, Any]
    """Each actor after the last of its unrolls that was learned from, or dropped."""
    metrics: list[Metrics]
    lessons: Any
    """Those of the last update, until distillers have them."""
    debt: int | None
    """What the learner has not yet trained for the actors: see `loops.pace`."""
    shown: Any
    """`Local.shown`."""


class ActorLearnerEngine(PoolEngine[AnyActor]):
    """Actors in threads, and a learner in the thread that calls `advance`."""

    def __init__(self, parts: Parts, make_schedule: Callable[[int], Schedule]):
        """`make_schedule`: from the update at which the run starts or goes on."""
        config = parts.config
        super().__init__(config.supervision, config.num_actors, name="actor")
        self._config = config
        self._parts = parts
        self._make_schedule = make_schedule
        self._distillers: Distillers | None = None
        self._made: _Made | None = None
        self._desk: ThreadedDesk | None = None
        self._keeper: Keeper | None = None

    def init(self, key: PRNGKey) -> Run:
        """Makes all environments, each in a thread, and a new run.

        Raises:
          RuntimeError: there is a run.
          HangError: an environment is not made in time.
          Exception: as the environment raised it.
        """
        self._check_new()
        self._system = self._make_system(key)
        if self._config.inference == "central":
            place, config = self._system.place(), self._config.central
            self._desk = ThreadedDesk(self._supervisor, place, config)
            self._system.desk = self._desk
        return self._system.new_run(self._make(self._system))

    def resume(self, run: Run) -> None:
        """Takes the actors to where the run was saved, in place of where `init` did.

        Where a simulator cannot be brought back, new environments are made, and a
        warning says so.
        """
        self._pool.resume(run.local.actors)

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """So many updates, as soon as there is something to learn from.

        Raises:
          DeadlineError, HangError: a thread is late.
          Exception: what an actor raised, with its own traceback, and a note that names
            the actor, environment and step; or a distiller, with its lesson.
        """
        with self._ended_by_errors():
            if self._began is None:
                self._start(run, int(run.progress.updates))
            with self._supervisor.working(), self._pool.warning_owner():
                self._advance(run, num_updates)
            made, student = self._made, None
            assert made is not None
            if distillers := self._distillers:
                with self._supervisor.working(), self._pool.warning_owner():
                    student = self._learner_times.timed(
                        "waiting for distillers", distillers.drain
                    )
        self._made = None
        return self._done(made, student)

    def rescue(self) -> tuple[Run, Metrics] | None:
        made, self._made = self._made, None
        if made is None or any(x.is_deleted() for x in jax.tree.leaves(made.run)):
            return None
        self.close()
        if self._distillers is None:
            return self._done(made, None)
        rest = self._distillers.finish(made.version, made.lessons)
        return rest and self._done(made, rest)

    def _advance(self, run: Run, num_updates: int) -> None:
        """Each update leaves `_made`, for who comes when the next one fails."""
        stages, learner, times = self._stages, self._system.learner, self._learner_times
        local: Local = run.local
        states, metrics = dict(enumerate(local.actors)), []
        version, run = int(run.progress.updates), run._replace(local=local.data)
        shown = local.shown
        for _ in range(num_updates):
            batches = times.timed("waiting for unrolls", self._intake.take)
            unrolls = [item for batch in batches for item in batch.unrolls]
            run = learner.shown(run, shown)
            if not learner.is_compiled(batches):
                # Meanwhile no thread can be late.
                with self._supervisor.paused():
                    learner.compile(run, batches)
            # Before the update: the lag is that of the parameters which learn.
            counted = learner.count(unrolls, version)
            self._pulls.note(unrolls, version)
            run, learned, lessons = times.timed(
                "updating", learner.update, run, batches
            )
            version += 1
            metrics = [*metrics, learned | counted]
            dropped = [item for batch in batches for item in batch.dropped]
            acted = sorted([*unrolls, *dropped], key=lambda item: item.unroll)
            states = states | {item.actor: item.after for item in acted}
            debt = self._intake.updated(learner.ready)
            self._made = _Made(run, version, states, metrics, lessons, debt, shown)
            # After the update: a line is in the record only if the update was made.
            self._write(unrolls, dropped)
            if distillers := self._distillers:
                shown = times.timed(
                    "waiting for distillers", distillers.dispatch, version, lessons
                )
                self._made = self._made._replace(lessons=None, shown=shown)
            elif version % self._config.updates_per_version == 0:
                times.timed("publishing", stages.publish, version, run.learner)

    def _done(self, made: _Made, rest: Any) -> tuple[Run, Metrics]:
        """What `advance` returns. `rest`: what distillers have made of the student."""
        system, run, metrics = self._system, made.run, made.metrics
        if rest is not None:
            run, metrics = system.learner.distilled(run, rest[0], metrics, rest[1])
        past = self._stages.publisher.older(system.num_past_params, made.version)
        debt = () if made.debt is None else count_of(made.debt)
        local = Local(tuple(made.states.values()), past, run.local, debt, made.shown)
        return system.with_local(run, local), stacked(metrics)

    def report(self) -> ActorLearnerReport | None:
        """Where the time went until now; None before the first update."""
        if self._began is None:
            return None
        tally, distillers = self._system.tally, self._distillers
        counts = self._counts(sum(tally.lags.values()))
        env_steps = sum(actor.env_steps for actor in self._pool.all_actors)
        return ActorLearnerReport(
            actor_steps_per_second=env_steps / counts["seconds"],
            learner_steps_per_second=tally.env_steps / counts["seconds"],
            actors=[actor.times.shares() for actor in self._pool],
            uploader=self._stages.uploader_times.shares(),
            learner=self._learner_times.shares(),
            queue_depth=tally.depths / max(tally.takes, 1),
            queue_size=self._stages.schedule.capacity,
            samples_per_insert=self._intake.samples_per_insert(),
            pace=self._config.pace if self._config.is_decoupled else None,
            uploaded_bytes=tally.uploaded_bytes,
            distillers=[x.shares() for x in distillers.times] if distillers else [],
            lessons=list(distillers.learned) if distillers else [],
            **self._counts_of_quorum(),
            batches=self._desk.batches() if self._desk else None,
            stuck=self._pulls.stuck(),
            **counts,
        )

    def close(self) -> None:
        """As `PoolEngine.close`; who acted and was never learned from is told of."""
        was_open = not self._closed
        super().close()
        report = self.report() if was_open and self._config.has_quorum else None
        if report and (told := report.starved()):
            warnings.warn(told, stacklevel=2)

    def _counts_of_quorum(self) -> dict[str, Any]:
        """What became of each actor's rows, where updates leave some out."""
        if not self._config.has_quorum:
            return {}
        acted: Counter[int] = Counter()
        for actor in self._pool.all_actors:
            acted[actor.index] += actor.rows
        tally, numbers = self._system.tally, range(self._config.num_actors)
        return {
            "learned_shares": [
                tally.learned_rows[i] / max(acted[i], 1) for i in numbers
            ],
            "stale_rows": [tally.stale_rows[i] for i in numbers],
            "max_lag": self._config.max_lag,
        }

    def _start(self, run: Run, version: int) -> None:
        system, supervisor = self._system, self._supervisor
        publisher = self._make_publisher(system.num_past_params + 1)
        local: Local = run.local
        # Lockstep that goes on acts with these before it gets newer ones.
        for age, params in enumerate(reversed(local.past_params), start=1):
            if version - age >= 0:
                publisher.publish(version - age, system.past_params(params))
        schedule = self._make_schedule(version)
        queue = Queue(supervisor, schedule, system.tally)
        # In the queue, in two batches behind it, and of each actor one.
        waiting = schedule.capacity + 2 * self._config.batch + self._config.num_actors
        self._pulls = Pulls(waiting * self._config.updates_per_version)
        self._begin(version)
        if self._record is not None and self._config.keep_unrolls:
            self._keeper = Keeper(self._record, version)
        stages = Stages(supervisor, self._pool, system, publisher, schedule, queue)
        self._stages, self._learner_times = stages, Times(supervisor.clock)
        self._intake = self._make_intake(stages, run)
        stages.publish(version, run.learner)
        if desk := self._desk:
            serve = partial(desk.serve, publisher.chosen)
            supervisor.start("inference", serve)
        self._pool.start(stages.act)
        supervisor.start("uploader", stages.upload)
        if self._config.num_distillers:
            self._distillers = Distillers(
                supervisor,
                system.learner.distil,
                Shared(system.student(run.learner)),
                stages.publish_student,
                self._config.num_distillers,
                shown=system.shows,
            )
            self._distillers.start()

    def _make_system(self, key: PRNGKey) -> ActorLearnerSystem:
        return ActorLearnerSystem(self._parts, key, self._config.num_past_params)

    def _make_publisher(self, keep: int) -> Publisher:
        return Publisher(self._supervisor, keep)

    def _make_intake(self, stages: Stages, run: Run) -> Intake:
        if not self._config.is_decoupled:
            return OneBatch(stages)
        pace = self._system.pace()
        learner, local = self._system.learner, run.local
        learner.look(run._replace(local=local.data))
        pace.ready, pace.debt = learner.ready, int(local.debt)
        return Paced(stages, pace, most=self._config.num_actors)

    def _write(self, unrolls: list[Unrolled], dropped: list[Unrolled]) -> None:
        if self._keeper:
            # First: where there is a line, there are its unrolls.
            self._keeper.write(unrolls)
        if self._recorder:
            lines = [(x, 0) for x in unrolls] + [(x, 1) for x in dropped]
            self._recorder.write([_entry(*line) for line in lines])


def _entry(item: Unrolled, dropped: int) -> Entry:
    runs = tuple(item.versions.items())
    known = item.actor, item.unroll, item.generation, item.version
    return Entry(*known, dropped, runs if len(runs) > 1 else ())
