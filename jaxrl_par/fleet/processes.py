"""The driver's side of processes: started when they are needed, and replaced."""

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxrl_par.bridge.supervision import DeadlineError
from jaxrl_par.errors import RefusedError
from jaxrl_par.fleet.cluster import Call, Cluster, Handle, LostError
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.messages import Hello
from jaxrl_par.fleet.process import Process
from jaxrl_par.fleet.recipe import Settings, differences, software

TICK = 0.1
"""Seconds between two looks at whether to wait any longer."""


class Lease(NamedTuple):
    """A process, as long as it lives."""

    handle: Handle
    incarnation: int
    """How many there were before in its place."""
    where: str
    pid: int

    def call(self, index: int, thread: int, method: str, *arguments: Any) -> Call:
        """Asks a member, which has a thread of its own there."""
        given = index, method, *arguments
        return self.handle.call("member", *given, group=f"member {thread}")

    def look(self, method: str, *arguments: Any) -> Call:
        """Asks about a member, whatever it does."""
        return self.handle.call(method, *arguments, group="watch")


class Slot:
    """A place for a process. It has one after the other."""

    def __init__(
        self, cluster: Cluster, config: FleetConfig, name: str, settings: Settings,
        recipe: bytes, kind: type[Process] = Process, known_as: str | None = None,
    ):  # fmt: skip
        """
        Args:
          name: what the process is called in errors.
          known_as: others find it by that.
        """
        self._cluster = cluster
        self._config = config
        self._name = name
        self._settings = settings
        self._recipe = recipe
        self._kind = kind
        self._known_as = known_as
        self._lock = threading.Lock()
        self._lease: Lease | None = None
        self._incarnations = 0
        self._condemned = -1

    def acquire(self, check: Callable[[], None]) -> Lease:
        """The process, which is started if there is none.

        Args:
          check: called again and again while it waits; ends that by raising.

        Raises:
          RefusedError: it has other software, or cannot load what it is to do.
          DeadlineError: it does not come.
          LostError: it died meanwhile.
        """
        while not self._lock.acquire(timeout=TICK):
            check()
        try:
            if self._lease and self._lease.incarnation <= self._condemned:
                self._drop(self._lease)
            if self._lease is None:
                self._lease = self._started(check)
            return self._lease
        finally:
            self._lock.release()

    def condemn(self, lease: Lease) -> None:
        """The process hangs or is dead: the next one who needs it gets another."""
        self._condemned = max(self._condemned, lease.incarnation)

    def is_current(self, lease: Lease) -> bool:
        """Whether it is neither condemned nor replaced."""
        return lease is self._lease and lease.incarnation > self._condemned

    def _drop(self, lease: Lease) -> None:
        lease.handle.kill()
        self._lease = None

    def _started(self, check: Callable[[], None]) -> Lease:
        threads = range(self._config.threads_per_process)
        groups = {f"member {i}": 1 for i in threads} | {"watch": 1}
        handle = self._cluster.make(
            self._kind,
            self._name,
            cpus=self._config.cpus_per_process,
            groups=groups,
            name=self._known_as,
        )
        deadline = time.monotonic() + self._config.start_seconds
        try:
            hello: Hello = self._waited(handle.call("hello"), deadline, check)
            handle.pid = hello.pid if self._cluster.is_local else None
            if found := differences(software(), hello.software):
                raise RefusedError(f"{hello.where}: {'; '.join(found)}")
            built = handle.call("build", self._settings, self._recipe)
            if problem := self._waited(built, deadline, check):
                told = f"{hello.where} cannot load what it is to do: {problem.told}"
                raise RefusedError(told) from problem.as_error()
        except BaseException:
            handle.kill()
            raise
        self._incarnations += 1
        return Lease(handle, self._incarnations - 1, hello.where, hello.pid)

    def _waited(self, call: Call, deadline: float, check: Callable[[], None]) -> Any:
        while not call.ready(TICK):
            check()
            if time.monotonic() > deadline:
                raise DeadlineError(
                    f"{self._name} did not start within"
                    f" {self._config.start_seconds:g} s; {self._cluster.room()}, and it"
                    f" needs {self._config.cpus_per_process:g}"
                )
        try:
            return call.result()
        except LostError as error:
            raise LostError(f"{self._name} did not start: {error}") from error
