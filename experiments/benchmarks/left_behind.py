"""What processes have, and whether anything of it is there after them."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_LISTENS = "0A"
"""The state of a socket in /proc/net/tcp."""


def descendants(pid: int) -> list[int]:
    """All processes that it has started, and those that they have."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        texts = [(task / "children").read_text() for task in tasks]
    except OSError:
        return []
    found = [int(x) for text in texts for x in text.split()]
    return found + [x for child in found for x in descendants(child)]


def is_alive(pid: int) -> bool:
    """Whether it runs; one that only waits for its parent does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def end(process: subprocess.Popen, seconds: float = 10.0) -> None:
    """Ends a process by SIGTERM, and all that it has started."""
    started = descendants(process.pid)
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass
class Belongings:
    """What was seen of processes while they lived."""

    shared: set[str] = field(default_factory=lambda: set(os.listdir("/dev/shm")))
    """Shared memory that was there before."""
    pids: set[int] = field(default_factory=set)
    sockets: set[str] = field(default_factory=set)
    """Where they listened, by inode."""

    def note(self, pid: int) -> None:
        """Looks at a process, and at all that it has started."""
        found = {pid, *descendants(pid)}
        self.pids |= found
        self.sockets |= _inodes(found) & _listening()

    def left(self, seconds: float) -> dict[str, list]:
        """What is still there after so many seconds at most; empty if all is gone.
        Shared memory is also that of whoever else uses this machine."""
        deadline = time.monotonic() + seconds
        while (found := self._left()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def _left(self) -> dict[str, list]:
        found = {
            "processes": sorted(filter(is_alive, self.pids)),
            "sockets": sorted(self.sockets & _listening()),
            "shared": sorted(set(os.listdir("/dev/shm")) - self.shared),
        }
        return {name: x for name, x in found.items() if x}


def _inodes(pids: set[int]) -> set[str]:
    found = set()
    for pid in pids:
        for file in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                found.add(os.readlink(file).removeprefix("socket:[").rstrip("]"))
    return found


def _listening() -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        found |= {x.split()[9] for x in lines if x.split()[3] == _LISTENS}
    return found
