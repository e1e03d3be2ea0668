"""Two learners on two hosts with a slow network between: rates, and a host cut off.

    python experiments/benchmarks/hosts.py        # Linux, as root

Hosts are network namespaces: see `namespaces`. A delay is that of one way.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from namespaces import Network, hosts, named, within

from jaxrl_par import cli
from jaxrl_par.errors import above, at_least

SCRIPT = Path(__file__).parent.parent / "a2c.py"
HOSTS = named(2)
RUN = [
    *("--num-envs", "32", "--unroll-length", "32", "--num-devices", "2"),
    *("--log-interval", "10", "--evaluation-envs", "2", "--evaluation-episodes", "1"),
    *("--no-gif", "--no-tensorboard", "--name", "run"),
]


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
            command = [*within(name), sys.executable, str(SCRIPT)]
            quiet = subprocess.DEVNULL
            process = subprocess.Popen([*command, *options, f"{i}"], stdout=quiet)
            processes.append(process)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def rate(network: Network, delay_ms: float, args: Args) -> dict[str, Any]:
    """Updates per second with that delay, in the median chunk but for the first."""
    network.delay, before = delay_ms / 1000, network.packets
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
        "packets": network.packets - before,
        "updates": found[-1]["updates"],
        "state_sha256": summary["state_sha256"],
    }


def cut(network: Network, args: Args) -> dict[str, Any]:
    """How both learners end when the other host is cut off in the middle of a run."""
    network.delay = 0.001
    with (
        TemporaryDirectory() as folder,
        learners(Path(folder), 10**6) as processes,
    ):
        deadline = time.monotonic() + args.timeout
        while len(rows(Path(folder))) < 3:
            if time.monotonic() > deadline or processes[0].poll() is not None:
                raise RuntimeError("the run that was to be cut did not begin")
            time.sleep(0.1)
        network.cut_off, started = {HOSTS["jaxrl1"]}, time.monotonic()
        ends = [process.wait(args.timeout) for process in processes]
        seconds = time.monotonic() - started
    network.cut_off = set()
    return {"exit_codes": ends, "seconds": seconds}


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics that are whole."""
    path = folder / "run" / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def main() -> None:
    """Prints the result, and writes it."""
    args = cli.parse(Args)
    with hosts(HOSTS) as network:
        rates = [rate(network, delay, args) for delay in args.delays_ms]
        result: dict[str, Any] = {"rates": rates}
        if args.cut:
            result["cut"] = cut(network, args)
    args.output.write_text(json.dumps(result | {"machine": cli.machine()}, indent=2))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
