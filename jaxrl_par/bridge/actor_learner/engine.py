"""Actors in threads, an uploader, perhaps distillers, and the learner in the thread of
its owner."""

from collections.abc import Callable
from functools import partial

import jax

from jaxrl_par.bridge.actor import Actor, Unrolled
from jaxrl_par.bridge.actor_learner.distillers import Distillers
from jaxrl_par.bridge.actor_learner.learner import Batch, stacked
from jaxrl_par.bridge.actor_learner.queue import Publisher, Queue, Schedule
from jaxrl_par.bridge.actor_learner.report import ActorLearnerReport
from jaxrl_par.bridge.actor_learner.system import ActorLearnerSystem, Local, Parts
from jaxrl_par.bridge.engine import PoolEngine
from jaxrl_par.bridge.reports import Times
from jaxrl_par.bridge.shared import Shared
from jaxrl_par.bridge.supervision import Stopped
from jaxrl_par.loops import Run
from jaxrl_par.loops.records import Entry
from jaxrl_par.types import Metrics, Params, PRNGKey, State


class ActorLearnerEngine(PoolEngine[Actor]):
    """Actors in threads, and a learner in the thread that calls `advance`."""

    def __init__(self, parts: Parts, make_schedule: Callable[[int], Schedule]):
        """`make_schedule`: from the update at which the run starts or goes on."""
        config = parts.config
        super().__init__(config.supervision, config.num_actors, name="actor")
        self._config = config
        self._parts = parts
        self._make_schedule = make_schedule
        self._batch: Batch | None = None
        self._distillers: Distillers | None = None

    def init(self, key: PRNGKey) -> Run:
        """Makes all environments, each in a thread, and a new run.

        Raises:
          HangError: an environment is not made in time.
          Exception: as the environment raised it.
        """
        self._system = ActorLearnerSystem(
            self._parts, key, self._config.num_past_params
        )
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
        version = int(run.progress.updates)
        if self._began is None:
            self._start(run, version)
        system, times = self._system, self._learner_times
        local: Local = run.local
        states, metrics = dict(enumerate(local.actors)), []
        run = run._replace(local=local.data)
        with self._supervisor.working(), self._pool.warning_owner():
            for _ in range(num_updates):
                batch = times.timed("waiting for unrolls", self._take_batch)
                if not self.compile_seconds:
                    # Meanwhile no thread can be late.
                    with self._supervisor.paused():
                        system.learner.compile(run, batch)
                # Before the update: the lag is that of the parameters which learn.
                counted = system.learner.count(batch, version)
                run, learned, lessons = times.timed(
                    "updating", system.learner.update, run, batch
                )
                version += 1
                if distillers := self._distillers:
                    times.timed(
                        "waiting for distillers", distillers.dispatch, version, lessons
                    )
                else:
                    times.timed("publishing", self._publish, version, run.learner)
                metrics.append(learned | counted)
                states |= {item.actor: item.after for item in batch.unrolls}
                # After the update: a line is in the record only if the update was made.
                self._write(batch.unrolls)
            if distillers := self._distillers:
                student, taught = times.timed(
                    "waiting for distillers", distillers.drain
                )
                run, metrics = system.learner.distilled(run, student, metrics, taught)
        past = self._publisher.older(system.num_past_params)
        local = Local(tuple(states.values()), past, run.local)
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
            uploader=self._uploader_times.shares(),
            learner=self._learner_times.shares(),
            queue_depth=tally.depths / max(tally.takes, 1),
            queue_size=self._schedule.capacity,
            uploaded_bytes=tally.uploaded_bytes,
            distillers=[x.shares() for x in distillers.times] if distillers else [],
            lessons=list(distillers.learned) if distillers else [],
            **counts,
        )

    def _start(self, run: Run, version: int) -> None:
        keep = self._system.num_past_params + 1
        self._publisher = Publisher(self._supervisor, keep)
        local: Local = run.local
        # Lockstep that goes on acts with these before it gets newer ones.
        for age, params in enumerate(reversed(local.past_params), start=1):
            if version - age >= 0:
                params = jax.device_put(params, self._parts.actor_device)
                self._publisher.publish(version - age, params)
        self._publish(version, run.learner)
        self._schedule = self._make_schedule(version)
        self._queue = Queue(self._supervisor, self._schedule, self._system.tally)
        self._begin(version)
        clock = self._supervisor.clock
        self._uploader_times, self._learner_times = Times(clock), Times(clock)
        self._pool.start(self._act)
        self._supervisor.start("uploader", self._upload)
        if self._config.num_distillers:
            self._distillers = Distillers(
                self._supervisor,
                self._system.learner.distil,
                Shared(self._system.student(run.learner)),
                self._publish_student,
                self._config.num_distillers,
            )
            self._distillers.start()

    def _act(self, actor: Actor) -> None:
        """The life of an actor's thread."""
        wait, times = self._supervisor.wait, actor.times
        while True:
            version, params = times.timed(
                "waiting for parameters", wait, partial(self._admit, actor),
                f"parameters for actor {actor.index}",
            )  # fmt: skip
            try:
                item = actor.unroll(params, version)
            except Stopped:
                raise
            except Exception as error:
                self._pool.restart(actor, error)
                continue
            times.timed("waiting for the queue", self._queue.put, item)

    def _admit(self, actor: Actor) -> tuple[int, Params] | None:
        """Version and parameters to act with; called under the lock."""
        newest = self._publisher.newest
        version = self._schedule.admit(actor.index, actor.next_unroll, newest)
        return None if version is None else (version, self._publisher.get(version))

    def _upload(self) -> None:
        """The life of the uploader's thread."""
        times = self._uploader_times
        while True:
            unrolls = [
                times.timed("waiting for unrolls", self._queue.get)
                for _ in range(self._config.batch)
            ]
            batch = times.timed("uploading", self._system.learner.upload, unrolls)
            times.timed("waiting for the learner", self._put_batch, batch)

    def _put_batch(self, batch: Batch) -> None:
        def free() -> bool:
            # One batch waits while the next one is uploaded: enough to keep the learner
            # busy, and every further one would only be older.
            if self._batch is not None:
                return False
            self._batch = batch
            self._supervisor.condition.notify_all()
            return True

        self._supervisor.wait(free, "learner")

    def _take_batch(self) -> Batch:
        def there() -> Batch | None:
            batch, self._batch = self._batch, None
            if batch is not None:
                self._supervisor.condition.notify_all()
            return batch

        return self._supervisor.wait(there, "batch to learn from")

    def _publish(self, version: int, state: State) -> None:
        self._publisher.publish(version, self._system.actor_params(state))

    def _publish_student(self, version: int, student: State) -> None:
        self._publisher.publish(version, self._system.student_params(student))

    def _write(self, unrolls: list[Unrolled]) -> None:
        if self._recorder:
            self._recorder.write(
                [Entry(x.actor, x.unroll, x.generation, x.version) for x in unrolls]
            )
