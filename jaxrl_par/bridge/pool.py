"""Actors and the threads that they run in: made, replaced, and ended together."""

import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic

from jaxrl_par.bridge.factory import ActorFactory, M
from jaxrl_par.bridge.reports import Times
from jaxrl_par.bridge.supervision import (
    Activity,
    HangError,
    Stopped,
    SupervisionConfig,
    Supervisor,
)


class ActorPool(Generic[M]):
    """Actors in threads of their own, which may be replaced while they work."""

    def __init__(
        self,
        supervisor: Supervisor,
        config: SupervisionConfig,
        factory: ActorFactory[M],
        num_actors: int,
        name: str,
    ):
        """`name`: what an actor is called in errors and reports."""
        self.abandoned: list[str] = []
        """Threads that did not end."""
        self._supervisor = supervisor
        self._supervisor.on_hang = self._on_hang
        self._config = config
        self._factory = factory
        self._num_actors = num_actors
        self._name = name
        self._actors: dict[int, M] = {}
        self._threads: dict[int, str] = {}
        self._retired: list[M] = []
        self._restarts = dict.fromkeys(range(num_actors), 0)
        self._news: deque[str] = deque()
        self._life: Callable[[M], None] | None = None

    def __iter__(self) -> Iterator[M]:
        return iter([self._actors[i] for i in sorted(self._actors)])

    @property
    def all_actors(self) -> list[M]:
        """All actors, those whose threads were given up among them."""
        return [*self._retired, *self]

    def make(self) -> None:
        """Makes all environments, each in a thread."""
        self._in_all_actors(
            lambda actor: actor.start(self._factory.env_key(actor.index, 0))
        )

    def resume(self, states: Any) -> None:
        """Takes actors to where they were saved. Where a simulator cannot be brought
        back, new environments are made, and a warning says so."""
        old = dict(self._actors)
        fresh = []

        def resume(actor: M) -> None:
            self.free(old[actor.index])
            state = states[actor.index]
            key = partial(self._factory.env_key, actor.index)
            generation = int(state.generation)
            if not actor.resume(state, key(generation), key(generation + 1)):
                fresh.append(actor.index)

        self._in_all_actors(resume)
        if fresh:
            env = next(iter(self)).env
            assert env is not None
            warnings.warn(
                f"{env.name} cannot be brought back to where it was: the"
                f" {env.num_envs * len(fresh)} episodes in progress of {self._name}s"
                f" {sorted(fresh)} were dropped, and new ones started. The learner goes"
                " on exactly",
                stacklevel=3,
            )

    def start(self, life: Callable[[M], None]) -> None:
        """Starts a thread for each actor, which lives `life` and frees its
        environments at the end."""
        self._life = life
        for actor in self:
            actor.times = Times(self._supervisor.clock)
            self._run(f"{self._name} {actor.index}", actor, partial(life, actor))

    def restart(self, actor: M, error: Exception) -> None:
        """Makes an actor's environments anew, or raises the error."""
        generation = self._count_restart(actor, error)
        self.free(actor)
        self._start_anew(actor, generation, actor.next_unroll)

    def stop(self) -> None:
        """Ends all threads; those inside a call that does not return are left."""
        for actor in self:
            actor.cancel()
        limit = self._config.close_seconds
        self.abandoned = self._supervisor.stop(limit * 0.6)
        if self._life is None:
            # Not the pool's own supervisor: it has stopped, and its threads end at a
            # wait.
            freeing = Supervisor(limit * 0.3)
            for actor in self:
                name = f"{self._name} {actor.index}"
                if name not in self.abandoned:
                    freeing.start(f"closing {name}", partial(self.free, actor))
            self.abandoned += freeing.stop(limit * 0.3)

    def free(self, actor: M) -> None:
        """Frees environments. An error while doing so is only queued as a warning."""
        try:
            actor.close()
        except Stopped:
            raise
        except Exception as error:
            self._news.append(
                f"{self._name} {actor.index}: closing its environments failed with"
                f" {type(error).__name__}: {error}"
            )

    @contextmanager
    def warning_owner(self) -> Iterator[None]:
        """Re-issues in the owner's thread, at the end, the warnings that other threads
        queued: raised in one of those, Python could lose them."""
        try:
            yield
        finally:
            while self._news:
                warnings.warn(self._news.popleft(), stacklevel=4)

    def _start_anew(self, actor: M, generation: int, unroll: int) -> None:
        """Makes environments, again and again if that fails, or raises the error."""
        while True:
            key = self._factory.env_key(actor.index, generation)
            try:
                return actor.start(key, generation, unroll)
            except Stopped:
                raise
            except Exception as error:
                generation = self._count_restart(actor, error)
                self.free(actor)

    def _run(self, name: str, actor: M, work: Callable[[], None]) -> None:
        def body() -> None:
            try:
                work()
            finally:
                # In the thread that stepped them: no other may call them at work.
                self.free(actor)

        self._threads[actor.index] = name
        self._supervisor.start(name, body)

    def _count_restart(self, actor: M, error: Exception) -> int:
        self._restarts[actor.index] += 1
        if self._restarts[actor.index] > self._config.restarts:
            raise error
        tally = self._factory.tally
        with self._supervisor.condition:
            tally.restarts += 1
            tally.dropped_rows += actor.rows_in_progress
            # Who sees the count is told of it at the next occasion.
            self._news.append(
                f"{self._name} {actor.index}: made its environments anew after"
                f" {type(error).__name__}: {error}"
            )
        return actor.generation + 1

    def _on_hang(self, activity: Activity, error: HangError) -> None:
        """Replaces an actor whose environment does not return, or fails."""
        # Runs in any thread that waits, with the supervisor's lock, which may be taken
        # again by the same thread.
        actor = self._actors[int(activity.name.split()[-1])]
        error.add_note(f"in {actor.where()}")
        life = self._life
        try:
            if life is None:
                raise error
            generation = self._count_restart(actor, error)
        except HangError:
            self._supervisor.fail(error)
            return
        # Its rows still count as acted, and what it did not finish as dropped.
        self._retired.append(actor)
        self.abandoned.append(self._threads[actor.index])
        successor = self._make_actor(actor.index)
        # Only one thread writes them: the old one raises `Stopped` before it comes to
        # its times again.
        successor.times = actor.times

        def live() -> None:
            self._start_anew(successor, generation, actor.next_unroll)
            life(successor)

        name = f"{self._name} {actor.index}, generation {generation}"
        self._run(name, successor, live)

    def _make_actor(self, index: int) -> M:
        activity = Activity(f"{self._name} {index}", self._config.env_timeout)
        self._supervisor.watch(activity)
        self._actors[index] = self._factory.actor(index, activity=activity)
        return self._actors[index]

    def _in_all_actors(self, work: Callable[[M], None]) -> None:
        """Does something in a thread for each actor, and waits for all."""
        done = []

        def do(actor: M) -> None:
            try:
                work(actor)
            except BaseException:
                self.free(actor)
                raise
            with self._supervisor.condition:
                done.append(actor.index)
                self._supervisor.condition.notify_all()

        for index in range(self._num_actors):
            self._supervisor.start(
                f"{self._name} {index}", partial(do, self._make_actor(index))
            )
        with self._supervisor.working():
            self._supervisor.wait(lambda: len(done) == self._num_actors, "environments")
