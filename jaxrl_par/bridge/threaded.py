"""Actors in threads, an uploader, perhaps distillers, and the learner in the thread of
its owner."""

import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax

from jaxrl_par.bridge.actor import Actor
from jaxrl_par.bridge.distillers import Distillers, Pupil
from jaxrl_par.bridge.exchange import Publisher, Queue, Schedule
from jaxrl_par.bridge.learner import Batch, stacked
from jaxrl_par.bridge.record import Entry, Recorder
from jaxrl_par.bridge.report import Report, Times
from jaxrl_par.bridge.supervision import Activity, HangError, Stopped, Supervisor
from jaxrl_par.bridge.system import Local, Parts, System
from jaxrl_par.loops import Run
from jaxrl_par.types import Metrics, Params, PRNGKey, State


@dataclass(frozen=True)
class Limits:
    """When patience ends."""

    patience: float
    """Longest wait in seconds of one thread for another."""
    env_timeout: float
    """Longest call of an environment in seconds."""
    max_restarts: int
    """Errors after which an actor's environments are made anew; 0 raises the first."""
    close_seconds: float = 5.0
    """Longest time that `close` takes."""


class Threaded:
    """An engine of `training.train`: `init`, perhaps `resume`, `advance`, `close`."""

    def __init__(
        self,
        parts: Parts,
        make_schedule: Callable[[int], Schedule],
        limits: Limits,
    ):
        """
        Args:
          make_schedule: from the update at which the run starts or goes on.
        """
        self._parts = parts
        self._make_schedule = make_schedule
        self._limits = limits
        self._record: Path | None = None
        self._supervisor = Supervisor(limits.patience)
        self._supervisor.on_hang = self._on_hang
        self._actors: dict[int, Actor] = {}
        self._threads: dict[int, str] = {}
        self._restarts = dict.fromkeys(range(parts.num_actors), 0)
        self._reset_times()
        self._batch: Batch | None = None
        self._recorder: Recorder | None = None
        self._distillers: Distillers | None = None
        self._started = self._closed = False
        self._retired: list[Actor] = []
        self._news: deque[str] = deque()
        self._abandoned: list[str] = []

    @property
    def compile_seconds(self) -> float:
        # Asked for before `init` where an engine is recognised by what it has.
        system = getattr(self, "_system", None)
        return system.learner.compile_seconds if system else 0.0

    def init(self, key: PRNGKey) -> Run:
        """Makes all environments, each in a thread, and a new run.

        Raises:
          HangError: an environment is not made in time.
          Exception: as the environment raised it.
        """
        self._system = System(self._parts, key)
        self._in_all_actors(
            lambda actor: actor.start(self._system.env_key(actor.index, 0))
        )
        return self._system.new_run(self._in_order())

    def resume(self, run: Run) -> None:
        """Takes the actors to where the run was saved, in place of where `init` did.

        Where a simulator cannot be brought back, new environments are made, and a
        warning says so.
        """
        old = dict(self._actors)
        local: Local = run.local
        fresh = []

        def resume(actor: Actor) -> None:
            self._free(old[actor.index])
            if not self._system.resume(actor, local.actors[actor.index]):
                fresh.append(actor.index)

        self._in_all_actors(resume)
        if fresh:
            env = self._in_order()[0].env
            assert env is not None
            warnings.warn(
                f"{env.name} cannot be brought back to where it was: the"
                f" {env.num_envs * len(fresh)} episodes in progress of actors"
                f" {sorted(fresh)} were dropped, and new ones started. The learner goes"
                " on exactly",
                stacklevel=2,
            )

    def record(self, path: Path) -> None:
        """Writes the schedule to this file, for `replay`."""
        self._record = path

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """So many updates, as soon as there is something to learn from.

        Raises:
          DeadlineError, HangError: somebody is late.
          Exception: what an actor raised, with its own traceback, and a note that names
            the actor, environment and step; or a distiller, with its lesson.
        """
        version = int(run.progress.updates)
        if not self._started:
            self._start(run, version)
        system, times = self._system, self._learner_times
        local: Local = run.local
        states, metrics = list(local.actors), []
        run = run._replace(local=local.memory)
        with self._supervisor.working(), self._telling():
            for _ in range(num_updates):
                batch = times.timed("waiting for unrolls", self._take_batch)
                self._compile(run, batch)
                counted = system.learner.count(batch, version)
                run, learned, lessons = times.timed(
                    "updating", system.learner.update, run, batch
                )
                version += 1
                if distillers := self._distillers:
                    times.timed(
                        "waiting for distillers", distillers.hand_out, version, lessons
                    )
                else:
                    times.timed("publishing", self._publish, version, run.learner)
                metrics.append(learned | counted | system.learner.episodes(batch))
                for item in batch.unrolls:
                    states[item.actor] = item.after
                self._write(batch)
            if distillers := self._distillers:
                pupil, taught = times.timed("waiting for distillers", distillers.drain)
                run, metrics = system.learner.distilled(run, pupil, metrics, taught)
        behaviour = self._publisher.older(self._parts.num_behaviours)
        local = Local(tuple(states), behaviour, run.local)
        return system.with_local(run, local), stacked(metrics)

    def report(self) -> Report | None:
        """Where the time went until now; None before the first update."""
        if not self._started:
            return None
        tally = self._system.tally
        seconds = max(self._supervisor.clock() - self._began, 1e-9)
        actors = self._all_actors()
        distillers = self._distillers
        return Report(
            seconds=seconds,
            actor_steps_per_second=sum(x.env_steps for x in actors) / seconds,
            learner_steps_per_second=tally.env_steps / seconds,
            updates=tally.updates,
            actors=[actor.times.shares() for actor in self._in_order()],
            uploader=self._uploader_times.shares(),
            learner=self._learner_times.shares(),
            queue_depth=tally.depths / max(tally.takes, 1),
            queue_size=self._schedule.capacity,
            uploaded_bytes=tally.uploaded_bytes,
            lags=dict(sorted(tally.lags.items())),
            compile_seconds=self.compile_seconds,
            restarts=tally.restarts,
            dropped_rows=tally.dropped_rows,
            abandoned=self._abandoned,
            distillers=[x.shares() for x in distillers.times] if distillers else [],
            lessons=list(distillers.learned) if distillers else [],
        )

    def close(self) -> None:
        """Ends all threads and frees all environments; a second call does nothing.

        What was acted and not learned from is counted as dropped. Threads inside a call
        that does not return are left behind, and named in the report.
        """
        if self._closed:
            return
        self._closed = True
        with self._telling():
            for actor in self._in_order():
                actor.cancel()
            limit = self._limits.close_seconds
            self._abandoned = self._supervisor.stop(limit * 0.6)
            if self._started:
                acted = sum(actor.rows for actor in self._all_actors())
                learned = sum(self._system.tally.lags.values())
                self._system.tally.dropped_rows = acted - learned
            else:
                self._free_all(limit * 0.3)
            if self._recorder:
                self._recorder.close()

    def _free_all(self, timeout: float) -> None:
        """Frees what no thread frees, within so many seconds."""
        ended = [
            x for x in self._in_order() if f"actor {x.index}" not in self._abandoned
        ]
        freeing = Supervisor(timeout)
        for actor in ended:
            freeing.start(f"closing actor {actor.index}", partial(self._free, actor))
        self._abandoned += freeing.stop(timeout)

    def _start(self, run: Run, version: int) -> None:
        keep = self._parts.num_behaviours + 1
        self._publisher = Publisher(self._supervisor, keep)
        local: Local = run.local
        for age, params in enumerate(reversed(local.behaviour), start=1):
            if version - age >= 0:
                params = jax.device_put(params, self._parts.actor_device)
                self._publisher.publish(version - age, params)
        self._publish(version, run.learner)
        self._schedule = self._make_schedule(version)
        self._queue = Queue(self._supervisor, self._schedule, self._system.tally)
        if self._record is not None:
            self._recorder = Recorder(self._record, version)
        self._reset_times()
        self._started = True
        for actor in self._in_order():
            self._run(f"actor {actor.index}", actor, partial(self._act, actor))
        self._supervisor.start("uploader", self._upload)
        if self._parts.num_distillers:
            self._distillers = Distillers(
                self._supervisor,
                self._system.learner.study,
                Pupil(run.learner.actor),
                self._publish,
                self._parts.num_distillers,
            )
            self._distillers.start()

    def _run(self, name: str, actor: Actor, work: Callable[[], None]) -> None:
        """Starts the thread of an actor, which frees its environments at the end."""

        def body() -> None:
            try:
                work()
            finally:
                self._free(actor)

        self._threads[actor.index] = name
        self._supervisor.start(name, body)

    def _reset_times(self) -> None:
        clock = self._supervisor.clock
        self._began = clock()
        self._uploader_times, self._learner_times = Times(clock), Times(clock)
        for actor in self._actors.values():
            actor.times = Times(clock)

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
                self._restart(actor, error)
                continue
            times.timed("waiting for the queue", self._queue.put, item)

    def _admit(self, actor: Actor) -> tuple[int, Params] | None:
        """Version and parameters to act with; called under the lock."""
        newest = self._publisher.newest
        version = self._schedule.admit(actor.index, actor.next_unroll, newest)
        return None if version is None else (version, self._publisher.get(version))

    def _restart(self, actor: Actor, error: Exception) -> None:
        """Makes an actor's environments anew, or raises the error."""
        while True:
            generation = self._count_restart(actor, error)
            self._free(actor)
            key = self._system.env_key(actor.index, generation)
            try:
                return actor.start(key, generation, actor.next_unroll)
            except Stopped:
                raise
            except Exception as another:
                error = another

    def _count_restart(self, actor: Actor, error: Exception) -> int:
        self._restarts[actor.index] += 1
        if self._restarts[actor.index] > self._limits.max_restarts:
            raise error
        tally = self._system.tally
        with self._supervisor.condition:
            tally.restarts += 1
            tally.dropped_rows += actor.rows_in_progress
            # Who sees the count is told of it at the next occasion.
            self._news.append(
                f"actor {actor.index}: made its environments anew after"
                f" {type(error).__name__}: {error}"
            )
        return actor.generation + 1

    def _on_hang(self, activity: Activity, error: HangError) -> None:
        """Replaces an actor whose environment does not return, or fails."""
        actor = self._actors[int(activity.name.split()[-1])]
        error.add_note(f"in {actor.where()}")
        try:
            if not self._started:
                raise error
            generation = self._count_restart(actor, error)
        except HangError:
            self._supervisor.fail(error)
            return
        self._retired.append(actor)
        self._abandoned.append(self._threads[actor.index])
        successor = self._make_actor(actor.index)
        successor.times = actor.times

        def act() -> None:
            key = self._system.env_key(actor.index, generation)
            try:
                successor.start(key, generation, actor.next_unroll)
            except Stopped:
                raise
            except Exception as again:
                self._restart(successor, again)
            self._act(successor)

        self._run(f"actor {actor.index}, generation {generation}", successor, act)

    def _upload(self) -> None:
        """The life of the uploader's thread."""
        times = self._uploader_times
        while True:
            unrolls = [
                times.timed("waiting for unrolls", self._queue.get)
                for _ in range(self._parts.batch)
            ]
            batch = times.timed("uploading", self._system.learner.upload, unrolls)
            times.timed("waiting for the learner", self._put_batch, batch)

    def _put_batch(self, batch: Batch) -> None:
        def free() -> bool | None:
            if self._batch is not None:
                return None
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

    def _compile(self, run: Run, batch: Batch) -> None:
        """Before the first update; nobody is late because of it."""
        if not self.compile_seconds:
            with self._supervisor.paused():
                self._system.learner.compile(run, batch)

    def _publish(self, version: int, state: State) -> None:
        params = jax.block_until_ready(self._system.behaviour(state.params))
        self._publisher.publish(version, params)

    def _write(self, batch: Batch) -> None:
        if self._recorder:
            self._recorder.write(
                [
                    Entry(x.actor, x.unroll, x.generation, x.version)
                    for x in batch.unrolls
                ]
            )

    def _make_actor(self, index: int) -> Actor:
        activity = Activity(f"actor {index}", self._limits.env_timeout)
        self._supervisor.watch(activity)
        self._actors[index] = self._system.actor(index, activity=activity)
        return self._actors[index]

    def _in_order(self) -> list[Actor]:
        return [self._actors[i] for i in sorted(self._actors)]

    def _all_actors(self) -> list[Actor]:
        """Those whose threads were given up among them."""
        return [*self._retired, *self._in_order()]

    def _in_all_actors(self, work: Callable[[Actor], None]) -> None:
        """Does something in a thread for each actor, and waits for all."""
        done = []

        def do(actor: Actor) -> None:
            try:
                work(actor)
            except BaseException:
                self._free(actor)
                raise
            with self._supervisor.condition:
                done.append(actor.index)
                self._supervisor.condition.notify_all()

        for index in range(self._parts.num_actors):
            self._supervisor.start(
                f"actor {index}", partial(do, self._make_actor(index))
            )
        with self._supervisor.working():
            self._supervisor.wait(
                lambda: True if len(done) == self._parts.num_actors else None,
                "environments",
            )

    def _free(self, actor: Actor) -> None:
        """Frees environments. That they fail even at this is worth only a line."""
        try:
            actor.close()
        except Stopped:
            raise
        except Exception as error:
            self._news.append(
                f"actor {actor.index}: closing its environments failed with"
                f" {type(error).__name__}: {error}"
            )

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Warns, at the end and in the owner's thread, of what happened in others:
        from there Python may lose a warning."""
        try:
            yield
        finally:
            while self._news:
                warnings.warn(self._news.popleft(), stacklevel=4)
