"""The driver's side of learners in processes: told to advance, and what came of it."""

import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.fleet.arrays import on_host, own
from jaxrl_par.fleet.cluster import Call, Cluster, LostError
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.peers import Advanced, Begun, Known, PeerProcess
from jaxrl_par.fleet.processes import TICK, Lease, Slot
from jaxrl_par.fleet.recipe import packed, settings
from jaxrl_par.loops import Engine, Run
from jaxrl_par.loops.peers import mean_state
from jaxrl_par.types import Mean, Metrics, PRNGKey


class LearnerFleetEngine(Engine):
    """Each learner in a process of its own; leaves of a run are [N, ...].

    What a learner has is in its process: a run that is given to `advance` is where they
    are, or was given to `resume`. One that is lost is missed until the end, and then
    has in the run the mean of the others.
    """

    def __init__(
        self, make: Callable[..., Any], parts: tuple[Any, ...], num_learners: int,
        fleet: FleetConfig, patience: float,
    ):  # fmt: skip
        """
        Args:
          make: (key, *parts) -> a `Peer`
          patience: seconds without a sign of a process after which it is taken for
            lost.
        """
        self._make, self._parts = make, parts
        self._size = num_learners
        # Each learns in a thread, and is asked in another one.
        self._fleet = replace(fleet, threads_per_process=1)
        self._patience = patience
        self._resources = ExitStack()
        self._leases: dict[int, Lease] = {}
        self._why: dict[int, str] = {}
        """By learner that is lost."""
        self._compile_seconds = 0.0
        self._last: list[Run] = []

    @property
    def compile_seconds(self) -> float:
        return self._compile_seconds

    @property
    def living(self) -> list[int]:
        """Learners that are not lost."""
        return sorted(self._leases)

    def init(self, key: PRNGKey) -> Run:
        """Starts all processes, and in each of them a learner of a new run.

        Raises:
          RuntimeError: there is a run.
          RefusedError, DeadlineError, LostError: as `Slot.acquire`, or as `Cluster`.
        """
        if self._leases:
            raise RuntimeError("an engine has one run: make another engine for another")
        recipe = packed(self._make, self._parts, key)
        config = self._fleet
        cluster = Cluster(config, self._size * config.cpus_per_process)
        self._resources.callback(cluster.close)
        given = settings(config.xla_threads, shares_disk=cluster.is_local), recipe
        names = tuple(cluster.full_name(f"learner-{i}") for i in range(self._size))

        def started(place: int) -> Lease:
            role = {"kind": PeerProcess, "known_as": f"learner-{place}"}
            slot = Slot(cluster, config, f"learner {place}", *given, **role)
            return slot.acquire(lambda: None)

        with ThreadPoolExecutor(self._size) as pool:
            self._leases = dict(enumerate(pool.map(started, range(self._size))))
        known = lambda i: (Known(names, i, self._patience),)  # noqa: E731
        begun: dict[int, Begun] = self._asked("begin", known, config.start_seconds)
        self._refuse_losses()
        self._compile_seconds = max(x.compile_seconds for x in begun.values())
        self._last = [own(begun[i].run) for i in range(self._size)]
        return _stacked(self._last)

    def resume(self, run: Run) -> None:
        runs = [jax.tree.map(lambda x, i=i: x[i], run) for i in range(self._size)]
        self._asked("resume", lambda i: (on_host(runs[i]),), self._patience)
        self._refuse_losses()
        self._last = runs

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """As `Engine.advance`. Learners that are lost meanwhile are told of.

        Raises:
          LostError: none is left.
        """
        before = self.living
        given = lambda i: (num_updates,)  # noqa: E731
        found: dict[int, Advanced] = self._asked("advance", given, self._patience)
        if not found:
            raise LostError(f"all {self._size} learners are lost. {self._told()}")
        for i in sorted(set(before) - set(found)):
            told = f"{len(found)} of {self._size} go on without it"
            warnings.warn(f"learner {i} is lost: {told}. {self._why[i]}", stacklevel=2)
        living = {i: own(x.run) for i, x in found.items()}
        self._last = [
            living[i] if i in living else _missing(self._last[i], list(living.values()))
            for i in range(self._size)
        ]
        columns = [found.get(i) for i in range(self._size)]
        metrics = _metrics([None if x is None else x.metrics for x in columns])
        return _stacked(self._last)._replace(settings=run.settings), metrics

    def record(self, path: Path) -> None:
        """Does nothing: who meets whom is known beforehand."""

    def report(self) -> None:
        """None: what learners wait for is in the metrics."""

    def close(self) -> None:
        self._leases = {}
        self._resources.close()

    def _asked(
        self, method: str, arguments: Callable[[int], tuple], patience: float
    ) -> dict[int, Any]:
        """The answers of those that are there; who is lost is none of them any more."""
        leases = self._leases
        calls = {i: x.handle.call(method, *arguments(i)) for i, x in leases.items()}
        signs = {i: _Sign(lease) for i, lease in leases.items()}
        found = {}
        while calls:
            # In turn, and the first one waits for all.
            for i, call in list(calls.items()):
                if call.ready(TICK / len(calls)):
                    del calls[i]
                    self._answered(i, call, found)
                elif signs[i].silent_for() > patience:
                    del calls[i]
                    leases[i].handle.kill()
                    self._miss(i, f"nothing was heard of it for {patience:g} s")
        return found

    def _answered(self, place: int, call: Call, found: dict[int, Any]) -> None:
        try:
            found[place] = call.result()
        except LostError as error:
            self._miss(place, str(error))

    def _miss(self, place: int, why: str) -> None:
        self._why[place] = f"{self._leases[place].where}: {why}"
        self._leases = {i: x for i, x in self._leases.items() if i != place}

    def _told(self) -> str:
        return "; ".join(self._why[i] for i in sorted(self._why))

    def _refuse_losses(self) -> None:
        """
        Raises:
          LostError: a learner was lost before any had learned.
        """
        if self._why:
            raise LostError(f"learners were lost before training. {self._told()}")


class _Sign:
    """When a process was last heard of."""

    def __init__(self, lease: Lease):
        self._lease = lease
        self._seen = self._asked = time.monotonic()
        self._call: Call | None = None

    def silent_for(self) -> float:
        """Seconds since its last answer."""
        now = time.monotonic()
        if self._call is not None and self._call.ready(0.0):
            self._call, self._seen = None, now
        if self._call is None and now - self._asked > 1.0:
            self._call, self._asked = self._lease.look("present", -1), now
        return now - self._seen if self._call is not None else 0.0


def _stacked(runs: Sequence[Run]) -> Run:
    """Leaves [N, ...]. Strong types, as those that come from a file."""
    return jax.tree.map(lambda *xs: jnp.stack(xs), *runs)


def _missing(last: Run, living: Sequence[Run]) -> Run:
    """A learner that is lost, as it would go on: with the mean of the others, in the
    environments that it was seen in last."""
    mean = mean_state(
        jax.tree.map(lambda *xs: jnp.stack(xs), *[x.learner for x in living])
    )
    progress = last.progress._replace(updates=living[0].progress.updates)
    return last._replace(learner=mean, progress=progress)


def _metrics(columns: list[list[Metrics] | None]) -> Metrics:
    """Of K updates, [K, N]. One who is lost counts nothing, and has no numbers."""
    other = next(x for x in columns if x is not None)
    nobody = [{name: _none_of(x) for name, x in row.items()} for row in other]
    whole = [nobody if x is None else x for x in columns]
    rows = [
        jax.tree.map(lambda *xs: np.stack(xs), *row) for row in zip(*whole, strict=True)
    ]
    return jax.tree.map(lambda *xs: np.stack(xs), *rows)


def _none_of(value: Any) -> Any:
    if isinstance(value, Mean):
        return Mean(0 * value.total, 0 * value.count)
    value = np.asarray(value)
    return np.full_like(value, np.nan if value.dtype.kind == "f" else 0)
