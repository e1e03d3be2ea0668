"""One learner and three hosts of actors with a slow network between: rates and lags.

    python experiments/benchmarks/actor_hosts.py      # Linux, as root, --extra ray

Hosts are network namespaces: see `namespaces`. On each is a node of one Ray cluster;
the driver with the learner is on the first, which has no actors. A delay is that of one
way. In one more run a host of actors is cut off in the middle: the time is measured
until its actor is made anew on another host, and how much is learned meanwhile.
"""

import json
import os
import secrets
import signal
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

from left_behind import end
from namespaces import Network, hosts, named, within

from jaxrl_par import cli
from jaxrl_par.errors import above, at_least

SCRIPT = Path(__file__).parent.parent / "impala_threads.py"
NUM_HOSTS = 3
NAMES = named(NUM_HOSTS + 1)
HEAD, *ACTORS = NAMES
ADDRESS = f"{NAMES[HEAD]}:6379"
ROWS = 24, 64
"""Environments of all actors, and the length of an unroll."""
RUN = [
    *("--topology", "fleet", "--fleet.address", ADDRESS),
    *("--threads.num-actors", f"{NUM_HOSTS}", "--threads.act-with", "numpy"),
    *("--threads.schedule", "free", "--threads.supervision.on-error", "restart"),
    *("--threads.supervision.env-timeout", "20.0"),
    *("--threads.supervision.close-seconds", "2.0"),
    *("--num-envs", f"{ROWS[0]}", "--unroll-length", f"{ROWS[1]}"),
    *("--num-minibatches", "1", "--log-interval", "5"),
    *("--evaluation-envs", "2", "--evaluation-episodes", "1"),
    *("--no-gif", "--no-tensorboard", "--name", "run"),
]
HEALTH = {
    # Ray takes a node for lost after some ten seconds, and not after a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass(frozen=True)
class Args:
    """What is measured."""

    delays_ms: tuple[float, ...] = (0.0, 1.0, 10.0)
    num_updates: int = 150
    cut: bool = True
    """Cut a host of actors off in the middle of one more run."""
    timeout: float = 300.0
    """Seconds after which what should happen is taken to hang."""
    output: Path = Path("actor_hosts.json")

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, delays_ms=0, num_updates=15) + above(self, timeout=0)


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """A node of Ray on each host, and the environment of who joins them."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    known = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    environ = os.environ | HEALTH | known | {"RAY_USAGE_STATS_ENABLED": "0"}
    nodes = []
    try:
        for name in NAMES:
            log = folder / f"{name}.log"
            nodes.append(node(name, folder, log, environ))
            deadline = time.monotonic() + 120
            while "Ray runtime started" not in log.read_text():
                if time.monotonic() > deadline or nodes[-1].poll() is not None:
                    raise RuntimeError(f"no node on {name}: {log.read_text()[-500:]}")
                time.sleep(0.2)
        yield environ
    finally:
        for started in reversed(nodes):
            end(started)


def node(
    name: str, folder: Path, log: Path, environ: dict[str, str]
) -> subprocess.Popen:
    """Starts a node of Ray on a host; the first one is the head, without actors."""
    where = ["--address", ADDRESS, "--num-cpus", "2"]
    if name == HEAD:
        where = ["--head", "--port", ADDRESS.rpartition(":")[2], "--num-cpus", "0"]
        where += ["--include-dashboard", "false", "--temp-dir", str(folder / "ray")]
    options = ["--node-ip-address", NAMES[name], "--block"]
    options += ["--object-store-memory", f"{100 * 10**6}"]
    start = [sys.executable, "-m", "ray.scripts.scripts", "start"]
    with log.open("w") as told:
        return subprocess.Popen(
            [*within(name), *start, *where, *options],
            env=environ,
            stdout=told,
            stderr=subprocess.STDOUT,
        )


@contextmanager
def learner(
    environ: dict[str, str], runs: Path, num_updates: int
) -> Iterator[subprocess.Popen]:
    """A run, on the first host."""
    steps = ROWS[0] * ROWS[1] * num_updates
    command = [*within(HEAD), sys.executable, str(SCRIPT), *RUN]
    command += ["--runs-dir", str(runs), "--total-steps", f"{steps}"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def rate(
    network: Network, environ: dict[str, str], delay_ms: float, args: Args
) -> dict[str, Any]:
    """Steps per second with that delay, in the median chunk, and the lag."""
    network.delay, before = delay_ms / 1000, network.packets
    with TemporaryDirectory() as folder:
        with learner(environ, Path(folder), args.num_updates) as process:
            if code := process.wait(args.timeout):
                raise RuntimeError(f"the learner ended with {code}")
        found = rows(Path(folder))
    taken = [
        (new["env_steps"] - old["env_steps"]) / (new["seconds"] - old["seconds"])
        for old, new in pairwise(found)
    ]
    return {
        "delay_ms": delay_ms,
        "steps_per_second": median(taken),
        "lag": sum(row["lag"] for row in found) / len(found),
        "lag_max": max(row["lag_max"] for row in found),
        "actor_transport": found[-1]["actor_transport"],
        "packets": network.packets - before,
        "updates": found[-1]["updates"],
        "restarts": found[-1]["restarts"],
    }


def cut(network: Network, environ: dict[str, str], args: Args) -> dict[str, Any]:
    """What becomes of a run when a host of actors is cut off in its middle."""
    network.delay = 0.001
    with TemporaryDirectory() as folder:
        with learner(environ, Path(folder), 10**6) as process:

            def wait(is_so: Any) -> dict[str, Any]:
                deadline = time.monotonic() + args.timeout
                while not ((found := rows(Path(folder))) and is_so(found[-1])):
                    if time.monotonic() > deadline or process.poll() is not None:
                        raise RuntimeError(f"after {len(found)} rows nothing more came")
                    time.sleep(0.1)
                return found[-1]

            before = wait(lambda row: row["updates"] >= 15)
            network.cut_off, began = {NAMES[ACTORS[-1]]}, time.monotonic()
            anew = wait(lambda row: row["restarts"] > before["restarts"])
            seconds = time.monotonic() - began
            after = wait(lambda row: row["updates"] >= anew["updates"] + 15)
            process.send_signal(signal.SIGTERM)
            code = process.wait(args.timeout)
        network.cut_off = set()
    return {
        "seconds_until_anew": seconds,
        "updates_meanwhile": anew["updates"] - before["updates"],
        "restarts": after["restarts"],
        "lag_after": after["lag"],
        "exit_code": code,
    }


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics that are whole."""
    path = folder / "run" / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def main() -> None:
    """Prints the result, and writes it."""
    args = cli.parse(Args)
    with (
        TemporaryDirectory() as folder,
        hosts(NAMES) as network,
        cluster(Path(folder)) as environ,
    ):
        rates = [rate(network, environ, delay, args) for delay in args.delays_ms]
        result: dict[str, Any] = {"rates": rates}
        if args.cut:
            result["cut"] = cut(network, environ, args)
    args.output.write_text(json.dumps(result | {"machine": cli.machine()}, indent=2))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
