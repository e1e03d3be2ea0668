"""All that the driver knows of Ray: a cluster, actors in it, and calls of them.

A cluster of one's own is reached through loopback only, has a token, and ends with the
process that made it, also if that is killed. One that is joined stays as it is: what
was started there ends.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrl_par.errors import RefusedError
from jaxrl_par.fleet.config import FleetConfig, host_and_port
from jaxrl_par.lazy import late

ray: Any = late("ray")

_PREFIX = "jaxrl_par-"
_LOCAL = {
    # All listen on loopback only; otherwise they would on every interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # What waits in a cluster whose head is gone ends after so long, and not a minute.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}


class LostError(RuntimeError):
    """A process, its node or what was on its way from there is lost."""


class Call:
    """Something that an actor was asked to do."""

    def __init__(self, reference: Any):
        self._reference = reference

    def ready(self, seconds: float) -> bool:
        """Whether the answer is there, or will not come; waits so long for it."""
        done, _ = ray.wait([self._reference], timeout=seconds)
        return bool(done)

    def result(self) -> Any:
        """The answer, which is there. Its arrays are read-only, and lie in the object
        store as long as they are used.

        Raises:
          LostError: there is none.
        """
        try:
            return ray.get(self._reference, timeout=60)
        except ray.exceptions.RayTaskError as error:
            # Not of what was asked for, which is part of the answer.
            raise error.as_instanceof_cause() from None
        except ray.exceptions.RayError as error:
            raise LostError(_first_line(error)) from error


class Handle:
    """An actor."""

    def __init__(self, actor: Any):
        self.pid: int | None = None
        """Its process, if that is on this machine."""
        self._actor = actor

    def call(self, method: str, *arguments: Any, group: str | None = None) -> Call:
        """Asks, and does not wait."""
        method = getattr(self._actor, method)
        options = {} if group is None else {"concurrency_group": group}
        return Call(method.options(**options).remote(*arguments))  # pyright: ignore

    def kill(self) -> None:
        """Ends its process at once."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._actor)
        # Ray asks first, and one that stands still would outlive its cluster.
        if self.pid is not None and _is_rays(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Cluster:
    """A connection, and the actors that were made by it."""

    def __init__(self, config: FleetConfig, cpus: float):
        """
        Args:
          cpus: processors that its actors will ask for.

        Raises:
          RefusedError: Ray is not installed, the address does not answer in time, or
            this process is connected to another cluster.
        """
        import_ray(config)
        self.is_local = config.address is None
        self._namespace = f"jaxrl_par-{uuid.uuid4().hex}"
        self._handles: list[Handle] = []
        _CONNECTION.enter(config, cpus)

    def make(
        self,
        kind: type,
        *arguments: Any,
        cpus: float = 0.0,
        name: str | None = None,
        groups: dict[str, int] | None = None,
    ) -> Handle:
        """An actor, which may still have to start.

        Args:
          cpus: processors that are kept for it.
          name: others find it by that.
          groups: threads of its calls, by their group.
        """
        given = {"concurrency_groups": groups} if groups else {}
        options = {
            "num_cpus": cpus,
            "max_restarts": 0,  # we make it anew, with what it needs, and count it
            "max_task_retries": 0,
            "scheduling_strategy": "SPREAD",
        }
        options |= {"name": self.full_name(name)} if name else {}
        actor = ray.remote(**given)(kind) if given else ray.remote(kind)
        handle = Handle(actor.options(**options).remote(*arguments))
        self._handles.append(handle)
        return handle

    def full_name(self, name: str) -> str:
        """By which it is found from all processes of the cluster."""
        return f"{self._namespace}-{name}"

    def put(self, value: Any) -> Any:
        """Copies the value into the object store, once; a reference to it."""
        return ray.put(value)

    def room(self) -> str:
        """What there is and what is free, for errors."""
        there, free = ray.cluster_resources(), ray.available_resources()
        return f"{free.get('CPU', 0):g} of {there.get('CPU', 0):g} processors are free"

    def close(self) -> None:
        """Ends all actors, and the cluster if it is our own and nobody else's."""
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.kill()
        _CONNECTION.leave()


class _Connection:
    """That of this process: Ray has one for all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._folder: str | None = None
        self._ours = False

    def enter(self, config: FleetConfig, cpus: float) -> None:
        with self._lock:
            if not ray.is_initialized():
                self._users = 0
                self._connect(config, cpus)
                self._ours = True
            elif config.address is not None:
                there = ray.get_runtime_context().gcs_address
                if there != config.address:
                    raise RefusedError(
                        f"fleet.address: this process is connected to {there} already,"
                        f" and cannot join {config.address}"
                    )
            elif not self._users:
                self._ours = False
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users or not self._ours:
                return
            ray.shutdown()
            folder, self._folder = self._folder, None
            if folder:
                shutil.rmtree(folder, ignore_errors=True)

    def _connect(self, config: FleetConfig, cpus: float) -> None:
        given: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if config.address is not None:
            wait_for(config.address, config.connect_seconds)
            with _kept_signals():
                _joined(config.address, given)
            return
        _sweep()
        self._folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
        if config.object_store_mb is not None:
            given["object_store_memory"] = config.object_store_mb * 10**6
        alone, signals = _environment(_LOCAL), _kept_signals()
        with alone, signals, warnings.catch_warnings():
            # JAX warns of every fork; those of Ray become other programs at once.
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called")
            ray.init(
                address="local",
                num_cpus=max(1, round(cpus + 0.5), os.cpu_count() or 1),
                include_dashboard=False,
                _temp_dir=self._folder,
                **given,
            )
        if not ray.util.get_node_ip_address().startswith("127."):
            warnings.warn(
                "Ray was imported before and listens on all interfaces, with a token."
                " It would on loopback only, had the fleet imported it",
                stacklevel=2,
            )


_CONNECTION = _Connection()


def import_ray(config: FleetConfig) -> None:
    """Imports Ray, which reads then whether it is to be reached from elsewhere.

    Raises:
      RefusedError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise RefusedError(
            "a fleet needs Ray, which is not installed: pip install 'jaxrl-par[ray]'"
        )
    with _environment({} if config.address else _LOCAL):
        importlib.import_module("ray")


def wait_for(address: str, seconds: float) -> None:
    """
    Raises:
      RefusedError: nobody listens there, for so long.
    """
    place = host_and_port(address)
    assert place is not None
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        try:
            socket.create_connection(place, timeout=max(left, 0.01)).close()
            return
        except OSError as error:
            if left <= 0.5:
                raise RefusedError(
                    f"fleet.address: nobody answers at {address} within {seconds:g} s:"
                    f" {error}"
                ) from error
        time.sleep(0.5)


def _is_rays(pid: int) -> bool:
    """Whether an actor of Ray has that number, and no other one by now."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False


def _sweep() -> None:
    """Removes folders of processes that were killed, and could not do it."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = path.name.removeprefix(_PREFIX).partition("-")[0]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (ValueError, PermissionError):
            pass  # another's, or something else


def _joined(address: str, given: dict[str, Any]) -> None:
    """Connects, or says why not."""
    try:
        ray.init(address=address, **given)
    except Exception as error:
        raise RefusedError(
            f"fleet.address: {address} is no Ray cluster that can be joined, or has"
            " another token (RAY_AUTH_MODE=token, and the same token file):"
            f" {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Variables that only what is started within sees; what a user has set stays."""
    added = {name: x for name, x in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextlib.contextmanager
def _kept_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself, which is to save the run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
