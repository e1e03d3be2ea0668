"""The roll call: every process tells process 0 what it is before anything is begun.

What is wrong is then a sentence, and no abort within a library: a process that is
missing or there twice, another config, another version, a port in use. The connections
stay open, and `watch` listens to them.
"""

import json
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from jaxrl_par.errors import RefusedError
from jaxrl_par.hosts.config import HostsConfig

_GREETING = "jaxrl_par"
_LONGEST = 2**22  # bytes of what a process tells
_SECONDS = 10.0  # in which a process that has connected tells it

Told = dict[str, Any]
"""What must be the same in all processes, by dotted name."""


class Peers(NamedTuple):
    """The processes that this one is connected to: all for process 0, else that."""

    process_id: int
    sockets: dict[int, socket.socket]


def call_roll(config: HostsConfig, about: Mapping[str, Any]) -> Peers:
    """Waits until all processes are there and tell the same.

    Args:
      config: with an address, a number of processes and a process.
      about: what must be the same in all of them, and is plain JSON.

    Raises:
      RefusedError: not all came in time, or two differ, or the address is taken or is
        none of this machine, or nobody answers there.
    """
    hello = {"who": _GREETING, "process": config.process_id, "about": dict(about)}
    hello["about"]["hosts.num_processes"] = config.num_processes
    deadline = time.monotonic() + config.join_seconds
    with ExitStack() as stack:
        if config.process_id == 0:
            peers = _gathered(config, hello, deadline, stack)
        else:
            peers = {0: stack.enter_context(_asked(config, hello, deadline))}
        stack.pop_all()
    return Peers(config.process_id or 0, peers)


def resolved(config: HostsConfig) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The address of process 0 as numbers.

    Raises:
      RefusedError: the name has none.
    """
    host, port = config.address
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        told = f"hosts.coordinator: {host} is no host that is known here"
        raise RefusedError(f"{told} ({error.strerror})") from error
    family, *_, address = found[0]
    return family, (str(address[0]), int(address[1]))


def differing(first: Told, other: Told) -> list[str]:
    """A line for each name whose values differ."""
    names = [x for x in {**first, **other} if first.get(x) != other.get(x)]
    return [f"{x}: {first.get(x)!r} in 0, {other.get(x)!r} there" for x in names]


def _gathered(
    config: HostsConfig, hello: Told, deadline: float, stack: ExitStack
) -> dict[int, socket.socket]:
    """Process 0: the connections of all others, who may go on."""
    assert config.num_processes is not None
    peers: dict[int, socket.socket] = {}
    with _listening(config) as server:
        while missing := set(range(1, config.num_processes)) - peers.keys():
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                peer, address = server.accept()
            except TimeoutError as error:
                told = (
                    f"{_listed(missing)} of {config.num_processes} did not come to"
                    f" {config.coordinator} within {config.join_seconds:g} s"
                )
                raise _refused(told, peers.values()) from error
            stack.enter_context(peer)
            if (theirs := _read(peer)) is None:
                continue  # a stranger, such as one that looks for open ports
            number = theirs["process"]
            place = f"process {number} ({address[0]})"
            if number in peers or number == 0:
                told = f"{place}: there are two of this hosts.process_id"
                raise _refused(told, [*peers.values(), peer])
            if wrong := differing(hello["about"], theirs["about"]):
                listed = "".join(f"\n  {line}" for line in wrong)
                told = f"{place} differs from process 0:{listed}"
                raise _refused(told, [*peers.values(), peer])
            peers[number] = peer
    for peer in peers.values():
        _send(peer, {"who": _GREETING, "refused": ""})
    return peers


@contextmanager
def _listening(config: HostsConfig) -> Iterator[socket.socket]:
    family, address = resolved(config)
    with socket.socket(family, socket.SOCK_STREAM) as server:
        # The coordinator of jax listens at the same port afterwards.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(address)
            server.listen(128)
        except OSError as error:
            told = f"process 0 cannot listen at hosts.coordinator {config.coordinator}"
            raise RefusedError(f"{told}: {error.strerror}") from error
        yield server


def _asked(config: HostsConfig, hello: Told, deadline: float) -> socket.socket:
    """Another process: its connection to process 0, which lets it go on."""
    family, address = resolved(config)
    where = f"hosts.coordinator {config.coordinator}"
    while True:
        peer = socket.socket(family, socket.SOCK_STREAM)
        peer.settimeout(max(deadline - time.monotonic(), 0.01))
        try:
            peer.connect(address)
            break
        except OSError as error:
            peer.close()
            if time.monotonic() > deadline:
                told = f"nobody answered at {where} within {config.join_seconds:g} s"
                raise RefusedError(f"{told}: {error.strerror or error}") from error
            time.sleep(0.2)
    _send(peer, hello)
    # Process 0 has a limit of its own, and says who is missing.
    answer = _read(peer, config.join_seconds + _SECONDS)
    if answer is None or answer["refused"]:
        peer.close()
        lost = (
            f"{where} answers, but not as a process 0 that waits for others: it has"
            " ended or begun without this process, whose hosts.process_id another one"
            " may have, or the port is another program's"
        )
        raise RefusedError(answer["refused"] if answer else lost)
    return peer


def _refused(told: str, peers: Iterable[socket.socket]) -> RefusedError:
    """The error, which all who came are told, too."""
    for peer in peers:
        _send(peer, {"who": _GREETING, "refused": told})
    return RefusedError(told)


def _send(peer: socket.socket, content: Told) -> None:
    with suppress(OSError):  # who has gone is missed by `watch`
        peer.sendall(json.dumps(content).encode() + b"\n")


def _read(peer: socket.socket, seconds: float = _SECONDS) -> Told | None:
    """A line of the other side; None if it is none of ours."""
    peer.settimeout(seconds)
    line = bytearray()
    try:
        while not line.endswith(b"\n") and len(line) < _LONGEST:
            if not (part := peer.recv(1)):
                return None
            line += part
        content = json.loads(line)
    except (OSError, ValueError):
        return None
    return content if _is_ours(content) else None


def _is_ours(content: Any) -> bool:
    if not (isinstance(content, dict) and content.get("who") == _GREETING):
        return False
    if isinstance(content.get("refused"), str):
        return True
    hello = isinstance(content.get("about"), dict)
    return hello and type(content.get("process")) is int


def _listed(processes: Sequence[int] | set[int]) -> str:
    numbers = sorted(processes)
    words = ", ".join(map(str, numbers[:10])) + ", ..." * (len(numbers) > 10)
    return f"process {words}" if len(numbers) == 1 else f"processes {words}"
