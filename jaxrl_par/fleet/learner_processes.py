"""Processes with a learner in each: started, asked, and missed where they are lost."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from jaxrl_par.fleet.cluster import Call, Cluster, LostError
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.process import Process
from jaxrl_par.fleet.processes import TICK, Lease, Slot
from jaxrl_par.fleet.recipe import packed, settings
from jaxrl_par.types import PRNGKey


class LearnerProcesses:
    """Those of one run, which are there until `resources` are closed."""

    def __init__(
        self, kind: type[Process], make: Callable[..., Any], parts: tuple[Any, ...],
        key: PRNGKey, num_learners: int, fleet: FleetConfig, patience: float,
        resources: ExitStack,
    ):  # fmt: skip
        """
        Args:
          make: (key, *parts) -> a learner, as `kind` needs it.
          patience: seconds without a sign of a process after which it is taken for
            lost.

        Raises:
          RefusedError: as `packed`, or as `Cluster`.
        """
        recipe = packed(make, parts, key)
        # Each learns in a thread, and is asked in another one.
        self._config = config = replace(fleet, threads_per_process=1)
        self._kind = kind
        self._size = num_learners
        self._patience = patience
        self.cluster = Cluster(config, num_learners * config.cpus_per_process)
        resources.callback(self.cluster.close)
        disk = self.cluster.is_local
        self._given = settings(config.xla_threads, shares_disk=disk), recipe
        self._started = [0] * num_learners
        self.leases: dict[int, Lease] = {}
        """Of those that are not lost."""
        self.why: dict[int, str] = {}
        """By learner that is lost."""

    @property
    def living(self) -> list[int]:
        """Learners that are not lost."""
        return sorted(self.leases)

    @property
    def names(self) -> tuple[str, ...]:
        """By which Ray finds them, or what takes the place of one."""
        return tuple(map(self._name, range(self._size)))

    def start(self) -> None:
        """Starts all, side by side.

        Raises:
          RefusedError, DeadlineError, LostError: as `Slot.acquire`.
        """
        with ThreadPoolExecutor(self._size) as pool:
            self.leases = dict(enumerate(pool.map(self._acquired, range(self._size))))

    def start_again(self, place: int) -> None:
        """Starts one in the place of one that is lost. Errors are those of `start`."""
        self._started[place] += 1
        lease = self._acquired(place)
        del self.why[place]
        self.leases = self.leases | {place: lease}

    def asked(
        self,
        method: str,
        arguments: Callable[[int], tuple],
        patience: float | None = None,
    ) -> dict[int, Any]:
        """The answers of those that are there; who is lost is none of them any more.

        Args:
          patience: other than that of all.
        """
        leases = self.leases
        calls = {i: x.handle.call(method, *arguments(i)) for i, x in leases.items()}
        limit = self._patience if patience is None else patience
        signs, found = self.signs(), {}
        while calls:
            # In turn, and the first one waits for all.
            for i, call in list(calls.items()):
                if call.ready(TICK / len(calls)):
                    del calls[i]
                    self._answered(i, call, found)
                elif self.is_silent(i, signs[i], limit):
                    del calls[i]
        return found

    def signs(self) -> dict[int, "Sign"]:
        """To tell from now on how long nothing was heard of those that are there."""
        return {i: Sign(lease) for i, lease in self.leases.items()}

    def is_silent(self, place: int, sign: "Sign", patience: float) -> bool:
        """Whether nothing was heard of a process for too long: then it is ended."""
        if sign.silent_for() <= patience:
            return False
        self.leases[place].handle.kill()
        self.miss(place, f"nothing was heard of it for {patience:g} s")
        return True

    def miss(self, place: int, why: str) -> None:
        """It is lost."""
        self.why[place] = f"{self.leases[place].where}: {why}"
        self.leases = {i: x for i, x in self.leases.items() if i != place}

    def told(self) -> str:
        """Why those are lost that are."""
        return "; ".join(self.why[i] for i in sorted(self.why))

    def refuse_losses(self) -> None:
        """
        Raises:
          LostError: a learner was lost before any had learned.
        """
        if self.why:
            raise LostError(f"learners were lost before training. {self.told()}")

    def _answered(self, place: int, call: Call, found: dict[int, Any]) -> None:
        try:
            found[place] = call.result()
        except LostError as error:
            self.miss(place, str(error))

    def _acquired(self, place: int) -> Lease:
        role = {"kind": self._kind, "known_as": self._known_as(place)}
        name = f"learner {place}"
        slot = Slot(self.cluster, self._config, name, *self._given, **role)
        return slot.acquire(lambda: None)

    def _name(self, place: int) -> str:
        return self.cluster.full_name(self._known_as(place))

    def _known_as(self, place: int) -> str:
        # Ray may still know the one before.
        return f"learner-{place}-{self._started[place]}"


class Sign:
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
