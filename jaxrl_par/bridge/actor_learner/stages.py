"""What the threads of an engine do: actors that act, and an uploader.

They do not know the engine: it can be forgotten, and then ends them.
"""

from functools import partial

from jaxrl_par.bridge.actor_learner.learner import Batch
from jaxrl_par.bridge.actor_learner.queue import Publisher, Queue, Schedule
from jaxrl_par.bridge.actor_learner.system import ActorLearnerSystem
from jaxrl_par.bridge.pool import ActorPool
from jaxrl_par.bridge.reports import Times
from jaxrl_par.bridge.supervision import Stopped, Supervisor
from jaxrl_par.bridge.unrolled import AnyActor
from jaxrl_par.types import Params, State


class Stages:
    """From the parameters that act to a batch to learn from."""

    def __init__(
        self,
        supervisor: Supervisor,
        pool: ActorPool[AnyActor],
        system: ActorLearnerSystem,
        publisher: Publisher,
        schedule: Schedule,
        queue: Queue,
    ):
        self.publisher = publisher
        self.schedule = schedule
        self.uploader_times = Times(supervisor.clock)
        self._supervisor = supervisor
        self._pool = pool
        self._system = system
        self._queue = queue
        self._batch: Batch | None = None

    def act(self, actor: AnyActor) -> None:
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

    def upload(self) -> None:
        """The life of the uploader's thread."""
        times = self.uploader_times
        while True:
            unrolls = [
                times.timed("waiting for unrolls", self._queue.get)
                for _ in range(self._system.parts.config.batch)
            ]
            batch = times.timed("uploading", self._system.learner.upload, unrolls)
            batch = batch._replace(dropped=self._queue.dropped())
            times.timed("waiting for the learner", self._put_batch, batch)

    def take_batch(self) -> Batch:
        """The next one, as soon as it is there."""

        return self._supervisor.wait(self._taken, "batch to learn from")

    def batch_if_there(self) -> Batch | None:
        """The next one, or None: it does not wait."""
        with self._supervisor.condition:
            return self._taken()

    def publish(self, version: int, state: State) -> None:
        """Gives actors the parameters of a learner's state."""
        self.publisher.publish(version, self._system.actor_params(state))

    def publish_student(self, version: int, student: State) -> None:
        """The same, from the part of it that distillers update."""
        self.publisher.publish(version, self._system.student_params(student))

    def _admit(self, actor: AnyActor) -> tuple[int, Params] | None:
        """Version and parameters to act with; called under the lock."""
        newest = self.publisher.newest
        version = self.schedule.admit(actor.index, actor.next_unroll, newest)
        return None if version is None else (version, self.publisher.get(version))

    def _taken(self) -> Batch | None:
        """The batch that waits; called under the lock."""
        batch, self._batch = self._batch, None
        if batch is not None:
            self._supervisor.condition.notify_all()
        return batch

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
