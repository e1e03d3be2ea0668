"""Kills training with SIGKILL at random moments, resumes it, and compares final bits.

Each trial starts the same short run, kills it somewhere between its first file and its
end, resumes it, and compares the SHA-256 of the final state with that of a run which
nobody disturbed. Prints one JSON object; exits with 1 unless all agree.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxrl_par.cli import parse
from jaxrl_par.errors import at_least

EXPERIMENTS = Path(__file__).parent.parent
# Saves so often that many kills fall into one.
RUN = [
    *("--log-interval", "10", "--checkpoint-interval", "20", "--no-gif"),
    *("--evaluation-envs", "2", "--evaluation-episodes", "1"),
]
SIZES = {
    "a2c": "--num-envs 8 --unroll-length 8 --total-steps 25600",
    # Two models and optimizers, a replay, and memories of both.
    "actor_learner_distillation": (
        "--num-envs 8 --unroll-length 8 --total-steps 192000 --env-name IMaze-5x5"
        " --learner.transformer.num-layers 1 --learner.memory-width 16"
        " --distillation.capacity 64 --distillation.batch-size 8"
    ),
}


@dataclass(frozen=True)
class Args:
    """How often, and where."""

    experiment: Literal["a2c", "actor_learner_distillation"] = "a2c"
    num_kills: int = 100
    seed: int = 0
    """Draws the moments."""
    timeout: float = 300.0
    """Seconds after which a process that should end is taken to hang."""

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, num_kills=1)


def run(args: Args) -> dict[str, object]:
    """The result, as it is printed."""
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        finish(runs, "warm-up", args)  # fills the cache of compiled programs
        duration = finish(runs, "undisturbed", args)
        expected = state(runs / "undisturbed")
        results = []
        for trial in range(args.num_kills):
            seconds = moments.uniform(0, duration)
            path = runs / f"trial-{trial}"
            rows = kill(path, seconds, args)
            finish(runs, path.name, args)
            results.append({"rows": rows, "equal": state(path) == expected})
            print(f"{trial + 1}: {results[-1]}", file=sys.stderr)
            shutil.rmtree(path)
    return {
        "experiment": args.experiment,
        "kills": args.num_kills,
        "equal": sum(result["equal"] for result in results),
        "killed_while_training": sum(result["rows"] > 0 for result in results),
        "state_sha256": expected,
    }


def kill(path: Path, seconds: float, args: Args) -> int:
    """Kills a new run so long after its folder is there; the rows it had written."""
    process = subprocess.Popen(
        command(path, args, resume=False), stdout=subprocess.DEVNULL
    )
    try:
        appeared(path, process, args.timeout)
        time.sleep(seconds)
    finally:
        process.kill()
        process.wait()
    metrics = path / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def finish(runs: Path, name: str, args: Args) -> float:
    """Runs or resumes to the end; the seconds from the folder's first moment."""
    path = runs / name
    process = subprocess.Popen(
        command(path, args, resume=path.exists()), stdout=subprocess.DEVNULL
    )
    try:
        appeared(path, process, args.timeout)
        started = time.monotonic()
        process.wait(args.timeout)
    finally:
        process.kill()
    if process.returncode:
        raise RuntimeError(f"{path} exited with {process.returncode}")
    return time.monotonic() - started


def appeared(path: Path, process: subprocess.Popen, timeout: float) -> None:
    """Waits for the folder of a run.

    Raises:
      RuntimeError: the process ended, or the time is over.
    """
    deadline = time.monotonic() + timeout
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{path} was not made; exit code {process.returncode}")
        time.sleep(0.01)


def command(path: Path, args: Args, *, resume: bool) -> list[str]:
    """The command line of the run at `path`."""
    where = ["--runs-dir", str(path.parent), "--name", path.name]
    script = str(EXPERIMENTS / f"{args.experiment}.py")
    options = [*SIZES[args.experiment].split(), *RUN, *where]
    return [sys.executable, script, *options, *(["--resume"] if resume else [])]


def state(path: Path) -> str:
    """SHA-256 of the final state of a run."""
    return json.loads((path / "summary.json").read_text())["state_sha256"]


def main() -> None:
    """Prints the result."""
    result = run(parse(Args))
    print(json.dumps(result, indent=2))
    raise SystemExit(result["equal"] != result["kills"])


if __name__ == "__main__":
    main()
