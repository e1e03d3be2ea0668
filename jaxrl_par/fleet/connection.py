"""The connection of this process to a cluster of Ray, of which it has one.

A cluster of one's own is reached through loopback only, has a token, and ends with the
process that made it, also if that is killed. One that is joined stays as it is.
"""

import contextlib
import importlib
import importlib.util
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
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
        variables = dict(_LOCAL)
        if config.object_store_mb is not None:
            given["object_store_memory"] = config.object_store_mb * 10**6
            # A page that is first touched when an unroll is sent takes as long again
            # as copying it: half a millisecond for 1 MB.
            variables["RAY_preallocate_plasma_memory"] = "1"
        alone, signals = _environment(variables), _kept_signals()
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


CONNECTION = _Connection()


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
      RefusedError: nobody listens there, for so long, or something else than Ray.
    """
    place = host_and_port(address)
    assert place is not None
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        try:
            with socket.create_connection(place, timeout=max(left, 0.01)) as there:
                if _speaks_http2(there):
                    return
                reason = "what listens there is no Ray cluster"
        except OSError as error:
            reason = str(error)
        if left <= 0.5:
            raise RefusedError(
                f"fleet.address: nobody answers at {address} within {seconds:g} s:"
                f" {reason}"
            )
        time.sleep(0.5)


def _speaks_http2(there: socket.socket) -> bool:
    """Whether the other side greets as gRPC, by which Ray speaks: it would wait for a
    quarter of an hour for one that says nothing. With TLS nobody can tell from here.

    Source: RFC 9113, section 3.4: both begin with a frame of settings.
    """
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return True
    settings, kind = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]), 3
    there.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
    greeting = b""
    while len(greeting) <= kind and (more := there.recv(16)):
        greeting += more
    return len(greeting) > kind and greeting[kind] == settings[kind]


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
            f" {first_line(error)}"
        ) from error


def first_line(error: BaseException) -> str:
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
