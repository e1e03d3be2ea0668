"""Where the processes of a fleet are, and how long they may take to come."""

from dataclasses import dataclass
from typing import ClassVar

from jaxrl_par.errors import ReadIf, above, at_least, at_most


@dataclass(frozen=True)
class FleetConfig:
    """Where the processes of a fleet are, and how long they may take to come."""

    read_if: ClassVar[ReadIf] = {"object_store_mb": ("address", (None,))}
    """What each of these fields is for: another one, and its values."""

    address: str | None = None
    """HOST:PORT of a Ray cluster that is there. None starts one on this machine, which
    no other can reach, and which ends with the run."""
    threads_per_process: int = 1
    """Actors or workers in a process. They share its interpreter, and are lost
    together."""
    cpus_per_process: float = 1.0
    """Processors that Ray keeps for a process: it starts no more of them on a node than
    fit there."""
    xla_threads: int = 1
    """Threads that XLA computes with in a process."""
    object_store_mb: int | None = None
    """Without an address: memory for what is on its way, in 10^6 bytes, all of which is
    taken at the start: sending is faster then. None leaves it to Ray, which takes up to
    a third of what there is, as it is needed."""
    connect_seconds: float = 15.0
    """Seconds in which the cluster has to answer."""
    start_seconds: float = 120.0
    """Seconds that it may take to start a process."""

    def problems(self) -> list[str]:
        """What is out of range."""
        found = at_least(self, threads_per_process=1, xla_threads=1)
        found += at_least(self, object_store_mb=80, cpus_per_process=0)
        found += at_most(self, threads_per_process=1024, xla_threads=1024)
        seconds = ("connect_seconds", "start_seconds")
        found += above(self, **dict.fromkeys(seconds, 0))
        found += at_most(self, **dict.fromkeys(seconds, 10**9))
        if self.address is not None and host_and_port(self.address) is None:
            found.append(f"address must be HOST:PORT, got {self.address}")
        return found


def host_and_port(address: str) -> tuple[str, int] | None:
    """The two parts of HOST:PORT, None if it is something else."""
    host, colon, port = address.rpartition(":")
    known = host and colon and port.isdecimal() and 0 < int(port) < 2**16
    return (host.strip("[]"), int(port)) if known else None
