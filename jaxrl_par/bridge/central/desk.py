"""The thread that acts: it gathers requests into batches, oldest first."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxrl_par.bridge.central.config import CentralConfig
from jaxrl_par.bridge.central.place import Answer, Ended, Place, Request, Rest
from jaxrl_par.bridge.reports import Shares, Times
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.measured import Metric
from jaxrl_par.types import Carry, Params

METRICS = {
    "inference_batch": Metric("actors", "answered together"),
    "inference_fill": Metric("share of `max_batch`", "that they are"),
    "inference_wait_ms": Metric("milliseconds", "from a question to its answer"),
    "inference_wait_ms_max": Metric("milliseconds", "the longest of these"),
}

Choose = Callable[[int | None], tuple[int, Params]]
"""From the version that a request wants, None for the newest, to its number and its
parameters, in one piece."""
_TICK = 0.1
"""Seconds between two looks at whether to stop."""


class _Waiting:
    """A request, and where its answer will be."""

    def __init__(self, asked: Request | Ended, now: float):
        self.asked = asked
        self.since = now
        self.answer: Any = None
        self.done = threading.Lock()
        self.done.acquire()


@dataclass(frozen=True)
class Batches:
    """What a desk did until now."""

    shares: Shares
    calls: int
    steps: int
    """Requests that were answered: steps of an actor."""
    slots: int
    """Most requests of a call."""
    waited: float
    """Seconds between requests and their answers, over all of them."""
    longest: float

    @property
    def mean_size(self) -> float:
        """Actors in a call, on average."""
        return self.steps / max(self.calls, 1)

    @property
    def fill(self) -> float:
        """Mean share of a batch that was not padding."""
        return self.mean_size / self.slots

    @property
    def mean_wait_ms(self) -> float:
        """Milliseconds that a step waited, on average."""
        return 1e3 * self.waited / max(self.steps, 1)

    def numbers(self) -> dict[str, float]:
        """What a row of metrics has of it."""
        return {
            "inference_batch": self.mean_size,
            "inference_fill": self.fill,
            "inference_wait_ms": self.mean_wait_ms,
            "inference_wait_ms_max": 1e3 * self.longest,
        }

    def told(self) -> str:
        """The same in a line, for the terminal."""
        return (
            f"{self.mean_size:.1f} of {self.slots} actors on average ({self.fill:.0%}"
            f" full); a step waited {self.mean_wait_ms:.2f} ms, at most"
            f" {1e3 * self.longest:,.0f}"
        )


class ThreadedDesk:
    """Answers actors in other threads of this process, in one of its own."""

    def __init__(self, supervisor: Supervisor, place: Place, config: CentralConfig):
        self._supervisor = supervisor
        self._place = place
        self._max_wait = config.max_wait_ms / 1e3
        self._waiting: deque[_Waiting] = deque()
        # Of its own: an answer is not to wake all threads of the run.
        self._news = threading.Condition()
        self._times = Times(supervisor.clock)
        self._calls = self._steps = 0
        self._waited = self._longest = 0.0

    def restore(self, actor: int, incarnation: int, memory: Carry) -> None:
        self._place.restore(actor, incarnation, memory)

    def ask(self, request: Request) -> Answer:
        return self._asked(request)

    def end(self, ended: Ended) -> Rest:
        return self._asked(ended)

    def batches(self) -> Batches:
        """Counts for the report."""
        return Batches(
            self._times.shares(), self._calls, self._steps, self._place.slots,
            self._waited, self._longest,
        )  # fmt: skip

    def serve(self, choose: Choose) -> None:
        """The life of the thread that acts."""
        self._times = times = Times(self._supervisor.clock)
        while True:
            taken = times.timed("waiting for requests", self._take)
            times.timed("acting", self._answer, taken, choose)

    def _asked(self, asked: Request | Ended) -> Any:
        waiting = _Waiting(asked, time.perf_counter())
        with self._news:
            self._waiting.append(waiting)
            number = len(self._waiting)
            # Not for each: who gathers a batch looks at all that wait.
            if number == 1 or number >= self._place.slots or isinstance(asked, Ended):
                self._news.notify()
        self._supervisor.acquire(waiting.done, "answer of the thread that acts")
        return waiting.answer

    def _take(self) -> list[_Waiting]:
        """What is to be answered next: ends of unrolls, or requests for one call."""
        with self._news:
            while True:
                self._supervisor.check()
                ended = [x for x in self._waiting if isinstance(x.asked, Ended)]
                if taken := ended or self._batch():
                    left = taken[0].since + self._max_wait - time.perf_counter()
                    if ended or len(taken) == self._place.slots or left <= 0:
                        # Not `remove`, which would compare arrays.
                        ids = set(map(id, taken))
                        rest = (x for x in self._waiting if id(x) not in ids)
                        self._waiting = deque(rest)
                        return taken
                    self._news.wait(min(left, _TICK))
                else:
                    self._news.wait(_TICK)

    def _batch(self) -> list[_Waiting]:
        """The oldest request, and those behind it that may be in its call: one for each
        slot, and all for the same version."""
        taken: dict[int, _Waiting] = {}
        for waiting in self._waiting:
            request: Any = waiting.asked
            oldest: Any = next(iter(taken.values()), waiting).asked
            if request.version == oldest.version:
                taken.setdefault(self._place.slot(request.actor), waiting)
        return list(taken.values())

    def _answer(self, taken: list[_Waiting], choose: Choose) -> None:
        asked: list[Any] = [x.asked for x in taken]
        if isinstance(asked[0], Ended):
            answers: list[Any] = [self._place.end(x) for x in asked]
        else:
            answers = self._place.answer(asked, *choose(asked[0].version))
            now = time.perf_counter()
            self._calls += 1
            self._steps += len(taken)
            self._waited += sum(now - x.since for x in taken)
            self._longest = max(self._longest, *(now - x.since for x in taken))
        for waiting, answer in zip(taken, answers, strict=True):
            waiting.answer = answer
            waiting.done.release()


class DirectDesk:
    """Answers at once, in the thread that asks: for a run that is repeated."""

    def __init__(self, place: Place, choose: Callable[[Request], tuple[int, Params]]):
        self._place = place
        self._choose = choose

    def restore(self, actor: int, incarnation: int, memory: Carry) -> None:
        self._place.restore(actor, incarnation, memory)

    def ask(self, request: Request) -> Answer:
        (answer,) = self._place.answer([request], *self._choose(request))
        return answer

    def end(self, ended: Ended) -> Rest:
        return self._place.end(ended)
