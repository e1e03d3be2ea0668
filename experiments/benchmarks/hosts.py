"""Two learners on two hosts with a slow network between: rates, and a host cut off.

    python experiments/benchmarks/hosts.py        # Linux, as root

Each host is a network namespace of its own. What lies between is this process, which
carries each packet from one to the other after a delay, and nothing any more once the
cable is cut. A delay is that of one way: an answer takes twice as long.
"""

import fcntl
import heapq
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from jaxrl_par import cli
from jaxrl_par.errors import above, at_least

SCRIPT = Path(__file__).parent.parent / "a2c.py"
HOSTS = {"jaxrl0": "10.77.0.1", "jaxrl1": "10.77.0.2"}
"""Namespaces, and the address of each."""
RUN = [
    *("--num-envs", "32", "--unroll-length", "32", "--num-devices", "2"),
    *("--log-interval", "10", "--evaluation-envs", "2", "--evaluation-episodes", "1"),
    *("--no-gif", "--no-tensorboard", "--name", "run"),
]
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000


@dataclass(frozen=True)
class Args:
    """What is measured."""

    delays_ms: tuple[float, ...] = (0.0, 1.0, 10.0)
    num_updates: int = 200
    cut: bool = True
    """Cut a host off in the middle of one more run."""
    timeout: float = 300.0
    """Seconds after which processes that should end are taken to hang."""
    output: Path = Path("hosts.json")

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, delays_ms=0, num_updates=30) + above(self, timeout=0)


class Cable:
    """Carries packets between the hosts, in a thread."""

    def __init__(self, ends: tuple[int, int]):
        """`ends`: a device of each host, as a file."""
        self.delay = 0.0
        self.is_cut = False
        self.packets = 0
        self._other = dict(zip(ends, reversed(ends), strict=True))
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _carry(self) -> None:
        order = count()
        waiting: list[tuple[float, int, int, bytes]] = []
        while not self._closing.is_set():
            soon = waiting[0][0] - time.monotonic() if waiting else 0.1
            ready, _, _ = select.select(list(self._other), [], [], max(soon, 0))
            now = time.monotonic()
            for end in ready:
                packet = os.read(end, 65536)
                if not self.is_cut:
                    due = now + self.delay
                    to = self._other[end]
                    heapq.heappush(waiting, (due, next(order), to, packet))
            while waiting and waiting[0][0] <= now:
                *_, to, packet = heapq.heappop(waiting)
                if not self.is_cut:
                    os.write(to, packet)
                    self.packets += 1


@contextmanager
def hosts() -> Iterator[Cable]:
    """Two namespaces with a cable between them; none is left afterwards."""
    ends = tuple(os.open("/dev/net/tun", os.O_RDWR) for _ in HOSTS)
    names = Path("/etc/netns")
    try:
        for (name, address), end in zip(HOSTS.items(), ends, strict=True):
            ip("netns", "add", name)
            device = struct.pack("16sH14x", name.encode(), _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(end, _TUNSETIFF, device)
            ip("link", "set", name, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
            ip("-n", name, "link", "set", "lo", "up")
            # gloo listens at the address of the machine's name.
            (names / name).mkdir(parents=True)
            table = f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n"
            (names / name / "hosts").write_text(table)
        cable = Cable((ends[0], ends[1]))
        try:
            yield cable
        finally:
            cable.close()
    finally:
        for name, end in zip(HOSTS, ends, strict=True):
            os.close(end)
            subprocess.run(["ip", "netns", "del", name], check=False)
            (names / name / "hosts").unlink(missing_ok=True)
            if (names / name).exists():
                (names / name).rmdir()


def ip(*words: str) -> None:
    """Sets something of the network."""
    subprocess.run(["ip", *words], check=True)


@contextmanager
def learners(runs: Path, num_updates: int) -> Iterator[list[subprocess.Popen]]:
    """One process on each host, which train together."""
    rows = 32 * 32
    options = [*RUN, "--runs-dir", str(runs), "--total-steps", f"{rows * num_updates}"]
    options += ["--hosts.coordinator", f"{HOSTS['jaxrl0']}:7000"]
    options += ["--hosts.num-processes", f"{len(HOSTS)}", "--hosts.process-id"]
    processes = []
    try:
        for i, name in enumerate(HOSTS):
            command = ["ip", "netns", "exec", name, sys.executable, str(SCRIPT)]
            quiet = subprocess.DEVNULL
            process = subprocess.Popen([*command, *options, f"{i}"], stdout=quiet)
            processes.append(process)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def rate(cable: Cable, delay_ms: float, args: Args) -> dict[str, Any]:
    """Updates per second with that delay, in the median chunk but for the first."""
    cable.delay, before = delay_ms / 1000, cable.packets
    with TemporaryDirectory() as folder:
        with learners(Path(folder), args.num_updates) as processes:
            for process in processes:
                if process.wait(args.timeout):
                    raise RuntimeError(f"a learner ended with {process.returncode}")
        found = rows(Path(folder))
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    taken = [
        (new["seconds"] - old["seconds"]) / (new["updates"] - old["updates"])
        for old, new in pairwise(found)
    ]
    return {
        "delay_ms": delay_ms,
        "updates_per_second": 1 / median(taken),
        "packets": cable.packets - before,
        "updates": found[-1]["updates"],
        "state_sha256": summary["state_sha256"],
    }


def cut(cable: Cable, args: Args) -> dict[str, Any]:
    """How both learners end when the cable is cut in the middle of a run."""
    cable.delay = 0.001
    with (
        TemporaryDirectory() as folder,
        learners(Path(folder), 10**6) as processes,
    ):
        deadline = time.monotonic() + args.timeout
        while len(rows(Path(folder))) < 3:
            if time.monotonic() > deadline or processes[0].poll() is not None:
                raise RuntimeError("the run that was to be cut did not begin")
            time.sleep(0.1)
        cable.is_cut, started = True, time.monotonic()
        ends = [process.wait(args.timeout) for process in processes]
        seconds = time.monotonic() - started
    cable.is_cut = False
    return {"exit_codes": ends, "seconds": seconds}


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics that are whole."""
    path = folder / "run" / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def main() -> None:
    """Prints the result, and writes it."""
    args = cli.parse(Args)
    with hosts() as cable:
        rates = [rate(cable, delay, args) for delay in args.delays_ms]
        result: dict[str, Any] = {"rates": rates}
        if args.cut:
            result["cut"] = cut(cable, args)
    args.output.write_text(json.dumps(result | {"machine": cli.machine()}, indent=2))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
