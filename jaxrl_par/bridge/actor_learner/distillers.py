"""Threads that teach one shared student, in place and without a lock (Hogwild!).

The student is the last stage of a chain, which acts: see `loops.chain`.

The learner hands out the lessons of an update. Each is taken by one distiller, which
reads the student as it finds it, learns, and adds what that changed to whatever the
others have made of the student meanwhile. What holds for any number of distillers:

* Every lesson is learned from once, and those of an update before those of the next.
  So an update starts from a student that lacks at most others of the same update.
* Version n of the student is that after all lessons of n updates: it is published, and
  saved, only while no lesson is out. No actor and no checkpoint sees it half written.
* A distiller writes only elements that it changes. Two that write the same element at
  the same instant may leave the change of one. Counts of the optimizer are exact.

The optimizer's statistics are shared like the parameters, as in A3C's shared RMSProp:
they are then of all lessons, and one state is all there is to save. A statistic that
decays by (1 - d) in an update stays positive as long as an update has far fewer than
1 / d lessons.

With one distiller nothing races: lessons are learned in their order, by the numbers of
`loops.chain`, while the learner goes on. With several, the result depends on who
was faster, and no record repeats it.

Source: Parisotto and Salakhutdinov, arXiv:2104.01655, section 4.1; Niu et al.,
arXiv:1106.5730; Mnih et al., arXiv:1602.01783, section 4.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_par.bridge.reports import Times
from jaxrl_par.bridge.shared import Shared
from jaxrl_par.bridge.supervision import Stopped, Supervisor
from jaxrl_par.types import Metrics, State

DistilFn = Callable[[State, Any, Any], tuple[State, Metrics]]
"""(student, lessons, number of one of them) -> (student after it, metrics)"""


def learn(student: Shared, distil: DistilFn, lessons: Any, number: int) -> Metrics:
    """One update in place. `raced` is 1 if another thread wrote in between."""
    old = student.read()
    new, metrics = jax.device_get(distil(old.state, lessons, np.int32(number)))
    return metrics | {"raced": np.float32(student.write(old, new))}


class _Round:
    """The lessons of an update."""

    def __init__(self, version: int, lessons: Any):
        """`version`: that of the student after them."""
        self.version, self.lessons = version, lessons
        self.unfinished: int = jax.tree.leaves(lessons)[0].shape[0]
        self.waiting = deque(range(self.unfinished))
        self.metrics: list[Any] = [None] * self.unfinished
        """Metrics by lesson, whichever was first."""


class Distillers:
    """Workers of the learner. At most one update's lessons are out."""

    def __init__(
        self,
        supervisor: Supervisor,
        distil: DistilFn,
        student: Shared,
        publish: Callable[[int, State], None],
        num_distillers: int,
        *,
        shown: bool = False,
    ):
        """
        Args:
          publish: called with each version of the student.
          shown: `dispatch` returns the student, for who reads it meanwhile.
        """
        self.times = [Times(supervisor.clock) for _ in range(num_distillers)]
        self.learned = [0] * num_distillers
        """Lessons of each distiller."""
        self._supervisor = supervisor
        self._distil = distil
        self._student = student
        self._publish = publish
        self._shown = shown
        self._round: _Round | None = None
        self._done: list[list[Metrics]] = []

    def start(self) -> None:
        for index in range(len(self.times)):
            self._supervisor.start(f"distiller {index}", partial(self._work, index))

    def dispatch(self, version: int, lessons: Any) -> State | tuple[()]:
        """Gives out the lessons of an update, when none of the one before are left; the
        student before them, or () if it is not shown."""
        handed = _Round(version, lessons)

        def free() -> tuple[State | tuple[()]] | None:
            if self._round is not None:
                return None
            # Before anyone writes again: it is a whole version.
            student = self._student.read().state if self._shown else ()
            self._round = handed
            self._supervisor.condition.notify_all()
            return (student,)

        waited = "end of the lessons of the update before"
        return self._supervisor.wait(free, waited)[0]

    def drain(self) -> tuple[State, list[list[Metrics]]]:
        """Waits until no lesson is left; the student, and the metrics of the lessons of
        each update since the last call."""

        def finished() -> list[list[Metrics]] | None:
            if self._round is not None:
                return None
            done, self._done = self._done, []
            return done

        done = self._supervisor.wait(finished, "end of the lessons")
        return self._student.read().state, done

    def finish(
        self, version: int, lessons: Any
    ) -> tuple[State, list[list[Metrics]]] | None:
        """As `drain`, in this thread, when the others have ended. None if one of them
        left a lesson half learned.

        Args:
          version, lessons: what was still to be dispatched; None is nothing.
        """
        self._finish_rest()
        if lessons is not None and self._round is None:
            self._round = _Round(version, lessons)
            self._finish_rest()
        if self._round is not None:
            return None
        done, self._done = self._done, []
        return self._student.read().state, done

    def _finish_rest(self) -> None:
        while (taken := self._take()) is not None:
            now, number = taken
            metrics = learn(self._student, self._distil, now.lessons, number)
            if self._finish(0, now, number, metrics):
                self._finish_round(now)

    def _work(self, index: int) -> None:
        """The life of a distiller's thread."""
        times = self.times[index]
        teach = partial(learn, self._student, self._distil)
        while True:
            now, number = times.timed(
                "waiting for lessons", self._supervisor.wait, self._take, "lesson"
            )
            try:
                metrics = times.timed("distilling", teach, now.lessons, number)
                if self._finish(index, now, number, metrics):
                    times.timed("publishing", self._finish_round, now)
            except Stopped:
                raise
            except Exception as error:
                error.add_note(
                    f"in distiller {index}, lesson {number} of update {now.version - 1}"
                )
                raise

    def _take(self) -> tuple[_Round, int] | None:
        """The next lesson, None if there is none; called under the lock."""
        # The last lesson may be taken long before the round ends: see `_finish_round`.
        if self._round is None or not self._round.waiting:
            return None
        return self._round, self._round.waiting.popleft()

    def _finish(self, index: int, now: _Round, number: int, metrics: Metrics) -> bool:
        """Whether that was the last lesson of all."""
        with self._supervisor.condition:
            now.metrics[number] = metrics
            # Counted down under the lock, so that exactly one thread sees the last one.
            now.unfinished -= 1
            self.learned[index] += 1
            return now.unfinished == 0

    def _finish_round(self, now: _Round) -> None:
        # No thread writes: all have finished, and the next lessons wait for this.
        self._publish(now.version, self._student.read().state)
        with self._supervisor.condition:
            self._done.append(now.metrics)
            self._round = None
            self._supervisor.condition.notify_all()
