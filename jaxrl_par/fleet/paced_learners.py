"""The driver's side of learners at their own pace: lets in turns, and sees them done.

Between two calls of `advance` no turn is given. Learners go on until they are done with
an unroll, and nobody waits for those that are not: what a run has of these is how they
were after their last turn, and the unroll is theirs when it goes on.
"""

import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_par.fleet.arrays import on_host, own
from jaxrl_par.fleet.cluster import Call, Handle, LostError
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.learner_processes import LearnerProcesses
from jaxrl_par.fleet.learners import apart, missing, none_of, stacked
from jaxrl_par.fleet.paced import Joined, PacedProcess, Standing
from jaxrl_par.fleet.paced_report import Meetings, PacedReport
from jaxrl_par.fleet.peers import Begun
from jaxrl_par.fleet.processes import TICK
from jaxrl_par.fleet.turns import Place, Settled, Turns
from jaxrl_par.loops import Engine, Run
from jaxrl_par.loops.records import Recorder, Turn
from jaxrl_par.types import Metrics, PRNGKey

Partners = Callable[[PRNGKey, int, int], list[list[int]]]


class PacedFleetEngine(Engine):
    """Each learner in a process of its own; leaves of a run are [N, ...].

    As in `LearnerFleetEngine`, what a learner has is in its process.
    """

    def __init__(
        self, make: Callable[..., Any], parts: tuple[Any, ...], num_learners: int,
        partners: Partners, fleet: FleetConfig, patience: float, restarts: int,
    ):  # fmt: skip
        """
        Args:
          make: (key, *parts) -> a `Paced`
          partners: (root of a run, first turn, number of turns) -> [turn][learner],
            whom that learner meets if the turn is its own.
          patience: seconds without a sign of a process after which it is taken for
            lost.
          restarts: learners that may be lost. Each is begun anew with the mean of the
            others; one more ends the run.
        """
        self._parts = make, parts
        self._size = num_learners
        self._partners = partners
        self._where = fleet, patience
        self._most_restarts = restarts
        self._resources = ExitStack()
        self._processes: LearnerProcesses | None = None
        self._turns: Handle | None = None
        self._learning: dict[int, Call] = {}
        self._compile_seconds = self._seconds = 0.0
        self._restarts = 0
        self._meetings = Meetings()
        self._shares: dict[int, dict[str, float]] = {}
        self._record: Path | None = None
        self._recorder: Recorder | None = None
        self._last: list[Run] = []

    @property
    def compile_seconds(self) -> float:
        return self._compile_seconds

    def init(self, key: PRNGKey) -> Run:
        """Starts all processes, and in each of them a learner of a new run.

        Raises:
          RuntimeError: there is a run.
          RefusedError, DeadlineError, LostError: as `LearnerProcesses`.
        """
        if self._processes:
            raise RuntimeError("an engine has one run: make another engine for another")
        fleet, patience = self._where
        given = key, self._size, fleet, patience, self._resources
        processes = LearnerProcesses(PacedProcess, *self._parts, *given)
        self._processes = processes
        processes.start()
        own_place = lambda i: (i,)  # noqa: E731
        begun = processes.asked("begin", own_place, fleet.start_seconds)
        processes.refuse_losses()
        self._compile_seconds = max(x.compile_seconds for x in begun.values())
        self._last = [own(begun[i].run) for i in range(self._size)]
        return stacked(self._last)

    def resume(self, run: Run) -> None:
        assert self._processes is not None
        self._last = apart(run, self._size)
        self._processes.asked("resume", lambda i: (on_host(self._last[i]),))
        self._processes.refuse_losses()

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """So many turns of learners, whosever they are.

        Raises:
          LostError: a learner is lost, and may not be begun anew; or what gives turns
            is.
        """
        first = int(jax.tree.map(lambda x: x[0], run.progress.updates))
        self._join(first)
        started, before = time.monotonic(), self._restarts
        partners = self._partners(run.key[0], first, num_updates)
        # Ray does not keep the order of such calls: each is waited for.
        self._told("open", first, partners)
        settled = self._settled()
        metrics = self._stand(settled)
        self._seconds += time.monotonic() - started
        self._count(settled, lost=self._restarts > before)
        return stacked(self._last)._replace(settings=run.settings), metrics

    def record(self, path: Path) -> None:
        """Writes whose turns they were, for `gossip.pace = own` as data.

        Raises:
          RuntimeError: it has advanced already.
        """
        if self._turns:
            raise RuntimeError("what was done is not recorded: record before advance")
        self._record = path.absolute()

    def report(self) -> PacedReport | None:
        """Who met whom, and where the time went; None before the first turn."""
        counted, places = self._meetings, range(self._size)
        if not counted.updates:
            return None
        seconds = max(self._seconds, 1e-9)
        return PacedReport(
            seconds=seconds,
            updates=counted.updates,
            lags=dict(sorted(counted.lags.items())),
            compile_seconds=self._compile_seconds,
            restarts=self._restarts,
            dropped_rows=0,
            abandoned=[],
            steps_per_second=counted.env_steps / seconds,
            learners=[self._shares.get(i, {}) for i in places],
            turns=[counted.turns[i] for i in places],
            met=dict(counted.met),
        )

    def close(self) -> None:
        self._resources.close()

    def _join(self, first: int) -> None:
        """Has all take turns from now on, if they do not yet."""
        assert self._processes is not None
        if self._turns is not None:
            return
        reads = self._processes.asked("read", lambda i: ())
        self._processes.refuse_losses()
        given = self._processes.names, [reads[i] for i in range(self._size)]
        cluster = self._processes.cluster
        self._turns = cluster.make(Turns, *given, name="turns", here=True)
        if self._record is not None:
            self._recorder = Recorder(self._record, first)
            self._resources.callback(self._recorder.close)
        for i in range(self._size):
            self._learn(i, generation=0, env_steps=0)

    def _learn(self, learner: int, generation: int, env_steps: int) -> None:
        assert self._processes is not None
        _, patience = self._where
        name = self._processes.cluster.full_name("turns")
        lease = self._processes.leases[learner]
        joined = Joined(name, learner, generation, env_steps, patience)
        call = lease.handle.call("learn", joined, group="member 0")
        self._learning[learner] = call

    def _settled(self) -> Settled:
        """What was done, once all turns that were let in are over; sees to those that
        are lost meanwhile."""
        turns, processes = self._turns, self._processes
        assert turns is not None and processes is not None
        call, (_, patience) = turns.call("settled"), self._where
        signs = processes.signs()
        while not call.ready(TICK):
            for i in range(self._size):
                if self._ended(i) or processes.is_silent(i, signs[i], patience):
                    self._replace(i)
                    # That took long, and nobody listened.
                    signs = processes.signs()
        return _of_turns(call)

    def _ended(self, learner: int) -> bool:
        """Whether a learner's process is lost. What it raises itself is raised."""
        assert self._processes is not None
        if not self._learning[learner].ready(0.0):
            return False
        try:
            self._learning[learner].result()
            why = "it has stopped"
        except LostError as error:
            why = str(error)
        self._processes.miss(learner, why)
        return True

    def _replace(self, learner: int) -> None:
        """Begins one anew that is lost, with the mean of the others.

        Raises:
          LostError: it may not be.
        """
        processes = self._processes
        assert processes is not None
        why = processes.why[learner]
        self._told("lose", learner)
        self._restarts += 1
        if self._restarts > self._most_restarts:
            told = f"and gossip.on_error allows {self._most_restarts} restarts"
            raise LostError(f"learner {learner} is lost, {told}. {why}")
        warnings.warn(f"learner {learner} is made anew: {why}", stacklevel=2)
        fleet, _ = self._where
        runs: dict[int, Run] = processes.asked("run", lambda i: ())
        if not runs:
            raise LostError(f"all {self._size} learners are lost. {processes.told()}")
        new = missing(self._last[learner], [own(x) for x in runs.values()])
        processes.start_again(learner)
        handle = processes.leases[learner].handle
        _begun: Begun = _result(handle.call("begin", learner), fleet.start_seconds)
        place: Place = self._told("place", learner)
        _result(handle.call("replace", on_host(new), place), fleet.start_seconds)
        self._told("join", learner, processes.names[learner], place.number)
        self._learn(learner, place.generation, place.env_steps)

    def _told(self, method: str, *arguments: Any) -> Any:
        """What gives turns was told, and answers.

        Raises:
          LostError: it does not.
        """
        assert self._turns is not None
        call, (_, patience) = self._turns.call(method, *arguments), self._where
        call.ready(patience)
        return _of_turns(call)

    def _stand(self, settled: Settled) -> Metrics:
        """Takes where all are, and the metrics of their turns, [K]."""
        assert self._processes is not None
        given = lambda i: (settled.number, settled.env_steps)  # noqa: E731
        measured: dict[int, Metrics] = {}
        found: dict[int, Standing] = {}
        while len(found) < self._size:
            found = self._processes.asked("standing", given)
            measured |= {n: row for x in found.values() for n, row in x.metrics}
            for i in sorted(set(range(self._size)) - set(found)):
                self._replace(i)
        self._last = [own(found[i].run) for i in range(self._size)]
        self._shares = {i: x.shares for i, x in found.items()}
        first = settled.number - len(settled.taken)
        return _stacked_metrics(measured, range(first, settled.number))

    def _count(self, settled: Settled, *, lost: bool) -> None:
        """Counts turns, and writes them into the record, which ends with a loss: what
        the others missed is not in it."""
        self._meetings.add(settled)
        if self._recorder is None:
            return
        if lost:
            told = "a learner was lost: from here on the run cannot be repeated"
            warnings.warn(told, stacklevel=2)
            self._recorder.close()
            self._recorder = None
            return
        for x in settled.taken:
            turn = Turn(x.learner, x.unroll, x.generation, (x.read,))
            self._recorder.write([turn])


def _of_turns(call: Call) -> Any:
    """
    Raises:
      LostError: what gives turns is lost.
    """
    try:
        return call.result()
    except LostError as error:
        told = f"what gives learners their turns is lost: {error}"
        raise LostError(told) from error


def _result(call: Call, seconds: float) -> Any:
    """
    Raises:
      LostError: it does not come, or not in time.
    """
    if not call.ready(seconds):
        raise LostError(f"nothing was heard for {seconds:g} s")
    return call.result()


def _stacked_metrics(measured: dict[int, Metrics], numbers: range) -> Metrics:
    """Of turns, [K]. One that was lost counts nothing, and has no numbers."""
    other = next(iter(measured.values()))
    nothing = {name: none_of(x) for name, x in other.items()}
    rows = [measured.get(number, nothing) for number in numbers]
    return jax.tree.map(lambda *xs: np.stack(xs), *rows)
