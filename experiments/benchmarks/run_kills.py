"""Runs whose processes are killed again and again, and go on from their checkpoints.

Each kind is a run of the command line. A kill falls at a random moment after the run
has written something new, and then it goes on at once, whatever is still there of it.
When it has come to its end its final state must have the hash of a run that nobody
disturbed. Where more kills are left, another run of the same kind is begun.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from left_behind import Belongings, descendants

EXPERIMENTS = Path(__file__).parent.parent
_OPTIONS = [
    *("--log-interval", "10", "--checkpoint-interval", "20", "--no-gif"),
    *("--no-tensorboard", "--evaluation-envs", "2", "--evaluation-episodes", "1"),
    *("--num-envs", "8", "--unroll-length", "8", "--env-name", "CartPole-v1"),
]
_LOCKSTEP = [
    *("--topology", "fleet", "--threads.num-actors", "2", "--num-minibatches", "1"),
    *("--threads.schedule", "lockstep", "--fleet.object-store-mb", "200"),
]


@dataclass(frozen=True)
class Kind:
    """What is run, and which of its processes is killed."""

    name: str
    script: str
    num_updates: int
    options: tuple[str, ...] = ()
    num_learners: int = 1
    """Processes of the learner; with several one of them is killed, and `launch`
    starts all again."""

    def command(self, runs: Path, name: str) -> list[str]:
        """How the run of that name is begun, or gone on with."""
        steps = str(self.num_updates * 64)
        words = [str(EXPERIMENTS / f"{self.script}.py"), *_OPTIONS, *self.options]
        words += ["--total-steps", steps, "--runs-dir", str(runs), "--name", name]
        words += ["--auto-resume"]
        if self.num_learners == 1:
            return [sys.executable, *words]
        together = ["-m", "jaxrl_par", "launch", "-n", str(self.num_learners)]
        return [sys.executable, *together, "--restarts", "1000", "--", *words]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("compiled", "a2c", 3000),
        Kind("driver", "impala", 300, tuple(_LOCKSTEP)),
        Kind("learner", "a2c", 800, ("--num-devices", "2"), num_learners=2),
    )
}


class Killed:
    """Runs of one kind that are killed so many times."""

    def __init__(self, kind: Kind, folder: Path, seed: int, timeout: float):
        """`timeout`: seconds after which what should happen is taken to hang."""
        self._kind = kind
        self._folder = folder
        self._draw = random.Random(f"{kind.name} {seed}")
        self._timeout = timeout
        self._environ = os.environ | {"JAX_PLATFORMS": "cpu"}
        self.belongings = Belongings()
        self.hashes: list[str] = []
        """Of the final states: the first is of the run that nobody disturbed."""
        self.kills: list[dict[str, Any]] = []

    def run(self, num_kills: int) -> None:
        """Kills so many times, and goes on to the end after the last."""
        self._finish(self._started("undisturbed"), "undisturbed")
        while len(self.kills) < num_kills:
            name = f"run-{len(self.hashes)}"
            process = self._started(name)
            try:
                while len(self.kills) < num_kills and self._kill(process, name):
                    if self._kind.num_learners == 1:
                        process = self._started(name)
                self._finish(process, name)
            finally:
                process.kill()
                process.wait()

    def _kill(self, process: subprocess.Popen, name: str) -> bool:
        """Kills once; False if the run came to its end before."""
        seen = self._updates(name)
        while self._updates(name) <= seen:
            if process.poll() is not None:
                return False
            self._wait(0.02)
        time.sleep(self._draw.uniform(0.0, 1.5))
        self.belongings.note(process.pid)
        started = descendants(process.pid)
        several = self._kind.num_learners > 1
        victims = [x for x in started if _is_learner(x)] if several else [process.pid]
        if process.poll() is not None or not victims:
            return False
        os.kill(self._draw.choice(victims), signal.SIGKILL)
        self._began = time.monotonic()
        if not several:
            process.wait()
        self.kills.append({"kind": self._kind.name, "updates": self._updates(name)})
        print(f"{len(self.kills):4} {self.kills[-1]}", flush=True)
        return True

    def _started(self, name: str) -> subprocess.Popen:
        self._began = time.monotonic()
        return subprocess.Popen(
            self._kind.command(self._folder, name),
            stdout=subprocess.DEVNULL,
            env=self._environ,
        )

    def _finish(self, process: subprocess.Popen, name: str) -> None:
        if code := process.wait(self._timeout):
            raise RuntimeError(f"{name} of {self._kind.name} ended with {code}")
        summary = json.loads((self._folder / name / "summary.json").read_text())
        self.hashes.append(summary["state_sha256"])

    def _updates(self, name: str) -> int:
        """How far the metrics of a run are; -1 if there are none."""
        path = self._folder / name / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return json.loads(lines[-1])["updates"] if lines else -1

    def _wait(self, seconds: float) -> None:
        if time.monotonic() - self._began > self._timeout:
            raise RuntimeError(f"{self._kind.name}: nothing new for {self._timeout} s")
        time.sleep(seconds)


def _is_learner(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return False
    return "--hosts.process-id" in words
