"""Updates from the first of several workers, as data: who is in time, and who is not.

Workers act, each with the newest parameters that there are when it begins, and an
update learns from the first q unrolls that are there, oldest first. Whoever is not
among them is learned from later, or dropped where that is too old. With all of n
workers it is lockstep: update m learns from the m-th unroll of each.

A round is an update with all unrolls that come to their end in it. Rounds are made
before the run that follows them, as `schedules` are, by the rules of threads with a
quorum; those that threads or a fleet recorded can be followed too.
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxrl_par.errors import at_least, at_most, refuse_any
from jaxrl_par.loops.records import Entry, RecordError

NOTHING, LEARNED, DROPPED = 0, 1, 2

Ints = Int[np.ndarray, "N M"]


class Rounds(NamedTuple):
    """N updates, each with places for M unrolls; a run of more begins it again.

    Of one worker they are in its order. All rounds learn from equally many.
    """

    worker: Ints
    delay: Ints
    """Updates since the parameters were new with which it acted."""
    kind: Ints
    """LEARNED; DROPPED, as it was too old; or NOTHING, an empty place."""
    time: Float[np.ndarray, " N"]
    """When the update is made, in units of the durations; NaN if nobody knows."""

    @property
    def quorum(self) -> int:
        """Unrolls that an update learns from."""
        return int(np.sum(self.kind[0] == LEARNED))


class _Unroll(NamedTuple):
    version: int
    unroll: int
    worker: int


def lockstep(durations: Float[np.ndarray, "N W"], lag: int) -> Rounds:
    """Each update learns from one unroll of every worker, acted with the parameters of
    `lag` updates before.

    Args:
      durations: [n, w], the time that worker w takes for its n-th unroll.
    """
    num_updates, num_workers = durations.shape
    time = np.zeros(num_updates)
    finished = np.zeros(num_workers)
    for n, duration in enumerate(durations):
        ready = time[n - lag - 1] if n > lag else 0.0
        finished = np.maximum(finished, ready) + duration
        time[n] = finished.max()
    delay = np.minimum(np.arange(num_updates), lag)
    shape = num_updates, num_workers
    return Rounds(
        np.broadcast_to(np.arange(num_workers), shape).astype(np.int32),
        np.broadcast_to(delay[:, None], shape).astype(np.int32),
        np.full(shape, LEARNED, np.int32),
        time,
    )


def simulated(
    durations: Float[np.ndarray, "N W"],
    quorum: int,
    lag: int = 0,
    max_lag: int | None = None,
) -> Rounds:
    """N updates of W workers; learning takes no time.

    Args:
      durations: [n, w], the time that worker w takes for its n-th unroll.
      quorum: unrolls that make an update.
      lag: unrolls that a worker may have begun before its last one was learned from.
        With a quorum of all, every unroll is acted with parameters of so many updates
        before.
      max_lag: age in updates beyond which an unroll is dropped; None drops nothing.

    Raises:
      RefusedError: a number is out of range.
    """
    num_updates, num_workers = durations.shape
    given = {"quorum": quorum, "lag": lag, "max_lag": max_lag}
    found = at_least(given, quorum=1, lag=0, max_lag=0)
    refuse_any(found + at_most(given, quorum=num_workers))
    if quorum == num_workers:
        return lockstep(durations, lag)
    workers = _Workers(durations, lag)
    waiting: list[_Unroll] = []
    late: list[_Unroll] = []
    rows: list[list[tuple[_Unroll, int]]] = []
    times: list[float] = []
    while len(rows) < num_updates:
        waiting += workers.finish()
        while len(rows) < num_updates:
            oldest = 0 if max_lag is None else len(rows) - max_lag
            old = [x for x in waiting if x.version < oldest]
            late += old
            waiting = sorted(x for x in waiting if x not in old)
            workers.close(old)
            if len(waiting) < quorum:
                break
            taken, waiting = waiting[:quorum], waiting[quorum:]
            workers.close(taken)
            rows.append([(x, DROPPED) for x in late] + [(x, LEARNED) for x in taken])
            times.append(workers.now)
            late = []
        workers.begin(len(rows))
    return _rounds(rows, times)


def recorded(
    schedule: Sequence[Sequence[Entry]], num_workers: int, quorum: int
) -> Rounds:
    """The rounds of a run of threads, or of a fleet, that was recorded.

    Raises:
      RecordError: it was of another number of actors or another quorum; environments
        were made anew; or several versions acted in one unroll.
    """
    rows, known = [], [0] * num_workers
    for number, entries in enumerate(schedule):
        row = []
        for entry in sorted(entries, key=lambda x: -x.dropped):
            place = f"update {number} of the record"
            if not 0 <= entry.actor < num_workers:
                raise RecordError(
                    f"{place} is of actor {entry.actor}, and there are {num_workers}"
                )
            if entry.generation or entry.runs or entry.unroll != known[entry.actor]:
                raise RecordError(
                    f"{place} has unroll {entry.unroll} of actor {entry.actor}: rounds"
                    " are of environments that were never made anew, whose unrolls"
                    " come in turn, each with one version"
                )
            known[entry.actor] += 1
            unroll = _Unroll(entry.version, entry.unroll, entry.actor)
            row.append((unroll, DROPPED if entry.dropped else LEARNED))
        if (found := sum(kind == LEARNED for _, kind in row)) != quorum:
            raise RecordError(
                f"update {number} of the record learned from {found} unrolls, and the"
                f" quorum is {quorum}"
            )
        rows.append(row)
    return _rounds(rows, [np.nan] * len(rows))


class _Workers:
    """Who is busy until when, and what of each is still to be learned from."""

    def __init__(self, durations: Float[np.ndarray, "N W"], lag: int):
        self.now = 0.0
        self._durations = durations
        self._lag = lag
        num_workers = durations.shape[1]
        self._next = [0] * num_workers
        self._open = [0] * num_workers
        self._busy = [False] * num_workers
        self._finishes: list[tuple[float, _Unroll]] = []
        self.begin(0)

    def begin(self, newest: int) -> None:
        """Whoever may begins its next unroll, with the newest parameters."""
        for worker, busy in enumerate(self._busy):
            if busy or self._open[worker] > self._lag:
                continue
            number = self._next[worker]
            self._next[worker] += 1
            self._open[worker] += 1
            self._busy[worker] = True
            last = min(number, len(self._durations) - 1)
            end = self.now + float(self._durations[last, worker])
            heapq.heappush(self._finishes, (end, _Unroll(newest, number, worker)))

    def finish(self) -> list[_Unroll]:
        """Those that are the next to be there, all at once if they are."""
        self.now = self._finishes[0][0]
        done = []
        while self._finishes and self._finishes[0][0] == self.now:
            done.append(heapq.heappop(self._finishes)[1])
            self._busy[done[-1].worker] = False
        return done

    def close(self, unrolls: Sequence[_Unroll]) -> None:
        """These were learned from, or dropped."""
        for x in unrolls:
            self._open[x.worker] -= 1


def _rounds(
    rows: Sequence[Sequence[tuple[_Unroll, int]]], times: Sequence[float]
) -> Rounds:
    width = max(len(row) for row in rows)
    worker, delay, kind = np.zeros((3, len(rows), width), np.int32)
    for number, row in enumerate(rows):
        for place, (unroll, what) in enumerate(row):
            worker[number, place] = unroll.worker
            delay[number, place] = number - unroll.version
            kind[number, place] = what
    return Rounds(worker, delay, kind, np.array(times))


def problems(rounds: Rounds, num_workers: int) -> list[str]:
    """What is wrong with rounds for so many workers."""
    worker, delay, kind, _ = rounds
    shapes = {worker.shape, delay.shape, kind.shape}
    if worker.ndim != 2 or not worker.size or len(shapes) > 1:
        return ["rounds need three arrays [N, M], with N and M at least 1"]
    there = kind != NOTHING
    found = []
    if worker.min() < 0 or worker.max() >= num_workers:
        found.append(f"workers must be in 0 .. {num_workers - 1}, got {worker.max()}")
    learned = np.sum(kind == LEARNED, axis=1)
    if learned.min() < 1 or learned.min() != learned.max():
        found.append(
            "all updates must learn from equally many unrolls, and at least 1, got"
            f" {learned.min()} .. {learned.max()}"
        )
    number = np.arange(len(delay))[:, None]
    if np.any((delay < 0) | (delay > number), where=there):
        found.append("a delay must be at least 0, and not from before the start")
    return found
