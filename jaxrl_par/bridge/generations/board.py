"""Where workers find what is to be played, and leave what came of it."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jaxrl_par.bridge.generations.evaluator import Task
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.loops.generations import Played


class Entered(NamedTuple):
    """A part that is learned from."""

    worker: int
    generation: int
    """How often the worker had been made anew."""
    part: int
    played: Played
    rows: int
    """Rows acted for it."""


class Board:
    """The parts of one generation. Each is taken by one worker at a time, the first
    part first; one whose worker fails goes back to the front."""

    def __init__(self, supervisor: Supervisor):
        self._supervisor = supervisor
        self._waiting: deque[Task] = deque()
        self._taken: dict[int, Task] = {}
        self._open = -1
        self._entered: list[Entered] = []
        self._late: list[Played] = []

    def open(self, tasks: list[Task]) -> None:
        """Begins a generation; what nobody has begun of the one before is withdrawn."""
        with self._changed():
            self._open = tasks[0].generation
            self._waiting = deque(tasks)
            self._entered = []

    def take(self, worker: int) -> Task:
        """The part that is next.

        Raises:
          Stopped: the owner stops.
        """

        def next_one() -> Task | None:
            self._give_back(worker)  # it was made anew, or hung
            if not self._waiting:
                return None
            self._taken[worker] = self._waiting.popleft()
            return self._taken[worker]

        return self._supervisor.wait(next_one, "parts to be played")

    def put(
        self, worker: int, generation: int, played: Played | None, rows: int
    ) -> None:
        """What came of the part that the worker had, None if nothing did.

        Args:
          generation: how often the worker had been made anew.
        """
        with self._changed():
            task = self._taken.pop(worker)
            if played is None:
                return
            if task.generation == self._open:
                given = worker, generation, task.part, played, rows
                self._entered.append(Entered(*given))
            else:
                self._late.append(played)

    def give_back(self, worker: int) -> None:
        """The worker failed: another may play what it had."""
        with self._changed():
            self._give_back(worker)

    def collect(self, quorum: int) -> tuple[list[Entered], list[Played]]:
        """The first parts that came, in the order of their numbers, and what came too
        late since the last time. It closes the generation."""

        def first_ones() -> tuple[list[Entered], list[Played]] | None:
            if len(self._entered) < quorum:
                return None
            entered, others = self._entered[:quorum], self._entered[quorum:]
            late = [*self._late, *(x.played for x in others)]
            self._open, self._entered, self._late = -1, [], []
            self._waiting.clear()
            return sorted(entered, key=lambda x: x.part), late

        return self._supervisor.wait(first_ones, "parts that were played")

    def _give_back(self, worker: int) -> None:
        task = self._taken.pop(worker, None)
        if task is not None and task.generation == self._open:
            self._waiting.appendleft(task)

    @contextmanager
    def _changed(self) -> Iterator[None]:
        with self._supervisor.condition:
            yield
            self._supervisor.condition.notify_all()
