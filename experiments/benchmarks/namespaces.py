"""Hosts on one machine, with a slow network between them: Linux, as root.

Each host is a network namespace of its own. What lies between is this process, which
carries each packet to the host of its address after a delay, and nothing any more from
or to one that is cut off. A delay is that of one way: an answer takes twice as long.
"""

import fcntl
import heapq
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000
_TUN = Path("/dev/net/tun")


def why_not() -> str:
    """Why there can be no such hosts here; empty where there can be."""
    if not _TUN.exists():
        return f"there is no {_TUN}"
    return "" if os.geteuid() == 0 else "namespaces need root"


def named(number: int) -> dict[str, str]:
    """So many hosts, by name, and the address of each."""
    return {f"jaxrl{i}": f"10.77.0.{i + 1}" for i in range(number)}


class Network:
    """Carries packets between the hosts, in a thread."""

    def __init__(self, ends: Mapping[str, int]):
        """`ends`: by address, a device of each host, as a file."""
        self.delay = 0.0
        """Seconds, one way."""
        self.cut_off: set[str] = set()
        """Addresses of hosts that no packet reaches or leaves."""
        self.packets = 0
        self._ends = dict(ends)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _carry(self) -> None:
        order = count()
        waiting: list[tuple[float, int, str, bytes]] = []
        addresses = {end: address for address, end in self._ends.items()}
        while not self._closing.is_set():
            soon = waiting[0][0] - time.monotonic() if waiting else 0.1
            ready, _, _ = select.select(list(addresses), [], [], max(soon, 0))
            now = time.monotonic()
            for end in ready:
                packet = os.read(end, 65536)
                to = _destination(packet)
                if to in self._ends and not {to, addresses[end]} & self.cut_off:
                    due = now + self.delay
                    heapq.heappush(waiting, (due, next(order), to, packet))
            while waiting and waiting[0][0] <= now:
                *_, to, packet = heapq.heappop(waiting)
                if to not in self.cut_off:
                    os.write(self._ends[to], packet)
                    self.packets += 1


def _destination(packet: bytes) -> str:
    """The address of an IPv4 packet; of others none that a host has."""
    is_ipv4 = len(packet) >= 20 and packet[0] >> 4 == 4
    return socket.inet_ntoa(packet[16:20]) if is_ipv4 else ""


@contextmanager
def hosts(addresses: Mapping[str, str]) -> Iterator[Network]:
    """A namespace for each name, with that address; none is left afterwards."""
    ends = {name: os.open(_TUN, os.O_RDWR) for name in addresses}
    try:
        for name, address in addresses.items():
            _add(name, address, ends[name])
        network = Network({addresses[name]: end for name, end in ends.items()})
        try:
            yield network
        finally:
            network.close()
    finally:
        for name, end in ends.items():
            os.close(end)
            _remove(name)


def within(name: str) -> list[str]:
    """What a command begins with that is to run on a host."""
    return ["ip", "netns", "exec", name]


def _add(name: str, address: str, end: int) -> None:
    _ip("netns", "add", name)
    device = struct.pack("16sH14x", name.encode(), _IFF_TUN | _IFF_NO_PI)
    fcntl.ioctl(end, _TUNSETIFF, device)
    _ip("link", "set", name, "netns", name)
    _ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
    _ip("-n", name, "link", "set", name, "up")
    _ip("-n", name, "link", "set", "lo", "up")
    # gloo, and Ray, listen at the address of the machine's name.
    table = _table(name)
    table.parent.mkdir(parents=True)
    table.write_text(f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n")


def _remove(name: str) -> None:
    subprocess.run(["ip", "netns", "del", name], check=False)
    table = _table(name)
    table.unlink(missing_ok=True)
    if table.parent.exists():
        table.parent.rmdir()


def _table(name: str) -> Path:
    return Path("/etc/netns") / name / "hosts"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
