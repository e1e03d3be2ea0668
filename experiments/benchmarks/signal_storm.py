"""Sends signals to training at random moments; each run has to end as it should.

A trial draws how a run is trained, a signal, whether the process or its whole group
gets it, and in which phase. The run must end soon, with the code that was promised, and
leave a folder that can be read, no process, and what `--resume` finishes: to the same
bits where that is promised. Prints a table; exits with 1 unless every end was clear.
"""

import atexit
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
from fault_injection import table

from jaxrl_par.cli import parse
from jaxrl_par.errors import at_least
from jaxrl_par.exit_codes import EXIT_CODES
from jaxrl_par.training.directory import write_json

SCRIPT = Path(__file__).parent.parent / "a2c.py"
STEPS, IMPORT = 3200, 5.0
"""Environment steps of a run; seconds in which a process imports."""
RUN = [
    *("--num-envs", "4", "--unroll-length", "8", "--network.widths", "8"),
    *("--log-interval", "5", "--checkpoint-interval", "20", "--no-tensorboard"),
    *("--evaluation-envs", "2", "--evaluation-episodes", "2", "--no-gif"),
    *("--evaluation-interval", "40", "--total-steps", str(STEPS)),
]
LOCKSTEP = ("--threads.schedule", "lockstep")
KINDS = {
    "compiled": (),
    "threads": ("--topology", "threads", *LOCKSTEP),
    "workers": ("--topology", "workers", "--workers.num-workers", "2"),
    "processes": ("--topology", "threads", "--backend", "processes", *LOCKSTEP),
}
SAME_BITS = ("compiled", "threads")
"""Kinds whose runs do not depend on who was faster, and whose environments can be
brought back to where they were."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
PHASES = ("import", "compile", "train", "checkpoint", "evaluate", "close")


@dataclass(frozen=True)
class Args:
    """How many signals, and what is soon."""

    num_signals: int = 200
    seed: int = 0
    """Seed of all that is drawn."""
    soon: float = 15.0
    """Seconds in which a run has to end."""
    timeout: float = 180.0
    """Seconds after which a process that nobody disturbs is taken to hang."""
    output: Path | None = None
    """JSON with every trial."""

    def problems(self) -> list[str]:
        """What is out of range."""
        return at_least(self, num_signals=1)


@dataclass(frozen=True)
class Trial:
    """What strikes what, and when."""

    fault: str
    """The phase, by the name that the table knows."""
    kind: str
    signal: str
    to_group: bool
    delay: float
    """Share of the phase's length after which the signal is sent."""


class Result(NamedTuple):
    """A trial and how it ended."""

    trial: Trial
    end: str
    problems: list[str]
    seconds: float
    """From the signal to the end."""


def draw(dice: random.Random) -> Trial:
    """A trial."""
    return Trial(
        dice.choice(PHASES),
        dice.choice(list(KINDS)),
        dice.choice(SIGNALS).name,
        dice.random() < 0.5,
        dice.random(),
    )


class Forked:
    """A copy of this process, which has imported all and started no device, that runs
    the script: seconds faster than one that is new."""

    def __init__(self, arguments: list[str], out: Any):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # JAX's, of forks
            self.pid = os.fork()
        self.returncode: int | None = None
        if self.pid == 0:
            os.setsid()
            for stream in (1, 2):
                os.dup2(out.fileno(), stream)
            os._exit(self._run(arguments))

    def poll(self) -> int | None:
        """The exit code, None before the end."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        """The exit code.

        Raises:
          subprocess.TimeoutExpired: there is none in time.
        """
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("script", timeout)
            time.sleep(0.01)
        return self.returncode or 0

    def _run(self, arguments: list[str]) -> int:
        sys.argv, code = arguments, 0
        try:
            runpy.run_path(arguments[0], run_name="__main__")
        except SystemExit as error:
            code = error.code
        except BaseException:
            traceback.print_exc()
            code = 1
        # As at the end of Python, which would be that of this program.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        return code if isinstance(code, int) else int(code is not None)


class Process:
    """A run in a process group of its own."""

    def __init__(self, path: Path, kind: str, *more: str, forked: bool = True):
        self.path = path
        where = ["--runs-dir", str(path.parent), "--name", path.name]
        arguments = [str(SCRIPT), *RUN, *KINDS[kind], *where, *more]
        os.environ["SIGNAL_STORM"] = str(path)
        self._mark = f"SIGNAL_STORM={path}"
        self._out = path.with_suffix(".out")
        with self._out.open("w") as out:
            if forked:
                self._process = Forked(arguments, out)
            else:
                self._process = subprocess.Popen(
                    [sys.executable, *arguments],
                    stdout=out, stderr=out, start_new_session=True,
                )  # fmt: skip

    def send(self, number: int, to_group: bool) -> None:
        """The signal, unless it has ended."""
        if self._process.poll() is None:
            send = os.killpg if to_group else os.kill
            send(self._process.pid, number)

    def wait_for(self, ready: Callable[[], bool], timeout: float) -> bool:
        """Whether that came before the end."""
        deadline = time.monotonic() + timeout
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                return ready()
            time.sleep(0.002)
        return True

    def finish(self, timeout: float) -> tuple[int | None, str]:
        """Exit code and output, None for one that does not end."""
        try:
            code = self._process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        return code, self._out.read_text()

    def left(self) -> list[str]:
        """Processes that it started and that are still there, a moment later."""
        deadline, found = time.monotonic() + 5, [""]
        while found and time.monotonic() < deadline:
            found = [pid for pid in os.listdir("/proc") if self._marked(pid)]
            time.sleep(0.05)
        return found

    def _marked(self, pid: str) -> bool:
        try:
            marks = Path("/proc", pid, "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return False  # it has ended, or is no process
        return self._mark.encode() in marks


def progress(path: Path) -> dict[str, Any]:
    """The last row that was logged.

    Raises:
      ValueError: a line is no JSON.
    """
    file = path / "metrics.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    rows = [{"updates": 0, "env_steps": 0}, *map(json.loads, lines)]
    return rows[-1]


def begins(phase: str, path: Path) -> Callable[[], bool]:
    """Whether a run has come to that phase."""
    saving = "checkpoints/*.orbax-checkpoint-tmp"
    return {
        "import": lambda: True,
        "compile": (path / "config.json").exists,
        "train": lambda: progress(path)["updates"] > 0,
        "checkpoint": lambda: any(path.glob(saving)),
        "evaluate": lambda: (
            progress(path)["env_steps"] >= STEPS and not any(path.glob(saving))
        ),
        "close": (path / "summary.json").exists,
    }[phase]


class Whole(NamedTuple):
    """A run that nobody disturbed."""

    summary: dict[str, Any]
    lengths: dict[str, float]
    """Seconds of each phase, about."""


def undisturbed(path: Path, kind: str, args: Args) -> Whole:
    """It, and when it came to each phase.

    Raises:
      RuntimeError: it failed.
    """
    process, times = Process(path, kind), []
    phases = ("compile", "train", "evaluate", "close")
    for phase in phases:
        process.wait_for(begins(phase, path), args.timeout)
        times.append(time.monotonic())
    code, out = process.finish(args.timeout)
    times.append(time.monotonic())
    if code:
        raise RuntimeError(out)
    lengths = {x: b - a for x, (a, b) in zip(phases, pairwise(times), strict=True)}
    lengths |= {"import": IMPORT, "checkpoint": 0.02}
    return Whole(json.loads((path / "summary.json").read_text()), lengths)


def strike(path: Path, trial: Trial, whole: Whole, args: Args) -> Result:
    """A run that gets the signal, and is then resumed."""
    # Only those import.
    process = Process(path, trial.kind, forked=trial.fault != "import")
    number = signal.Signals[trial.signal]
    begun = begins(trial.fault, path)
    process.wait_for(begun, args.timeout)
    time.sleep(trial.delay * whole.lengths[trial.fault])
    started = time.monotonic()
    process.send(number, trial.to_group)
    code, out = process.finish(2 * args.soon)
    seconds = time.monotonic() - started
    problems = [] if seconds < args.soon else [f"it took {seconds:.1f} s"]
    if left := process.left():
        problems.append(f"processes are left: {left}")
    complete = (path / "summary.json").exists()
    promised = {EXIT_CODES[number]: f"exit {code}"}
    if complete:
        promised[0] = "complete"
    if trial.fault == "import":
        # Before the script begins, signals do what they do to any process.
        promised[-number] = "killed"
    if code not in promised:
        problems.append(f"exit {code}: {out}")
    if (path / "config.json").exists():
        problems += resumed(path, trial, whole, args)
    end = "does not end" if code is None else promised.get(code, f"exit {code}")
    return Result(trial, end, problems, seconds)


def resumed(path: Path, trial: Trial, whole: Whole, args: Args) -> list[str]:
    """What is wrong with the folder, and with how the run goes on from there."""
    try:
        logged = progress(path)["updates"]
        json.loads((path / "config.json").read_text())
        code, out = Process(path, trial.kind, "--resume").finish(args.timeout)
        if code:
            return [f"resumed with exit {code}: {out}"]
        summary = json.loads((path / "summary.json").read_text())
    except ValueError as error:
        return [f"the folder is damaged: {error}"]
    problems = [] if progress(path)["updates"] >= logged else ["rows are lost"]
    same = ("updates", "state_sha256") if trial.kind in SAME_BITS else ()
    return problems + [
        f"{x}: {summary[x]}, {whole.summary[x]} if nobody disturbs it"
        for x in same
        if summary[x] != whole.summary[x]
    ]


def run(args: Args) -> list[Result]:
    """All trials, one after the other."""
    dice, results, whole = random.Random(args.seed), [], {}
    # No `TemporaryDirectory`: what is forked would remove it at its end.
    runs = Path(tempfile.mkdtemp())
    cache = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{runs}/cache")
    jax.config.update("jax_compilation_cache_dir", cache)
    try:
        for kind in KINDS:
            code, out = Process(runs / f"{kind}-warm", kind).finish(args.timeout)
            if code:
                raise RuntimeError(out)
            whole[kind] = undisturbed(runs / kind, kind, args)
            print(f"{kind}: {whole[kind].lengths}", file=sys.stderr)
        for number in range(args.num_signals):
            trial = draw(dice)
            result = strike(runs / f"run-{number}", trial, whole[trial.kind], args)
            results.append(result)
            shutil.rmtree(runs / f"run-{number}", ignore_errors=True)
            text = f"{number + 1}: {trial}: {result.end} {result.problems or ''}"
            print(f"{text} {result.seconds:.1f} s", file=sys.stderr, flush=True)
            if args.output:
                write(args.output, results)
    finally:
        shutil.rmtree(runs)
    return results


def write(path: Path, results: list[Result]) -> None:
    """Numbers, and every trial."""
    rows = [x._asdict() | {"trial": asdict(x.trial)} for x in results]
    clear = sum(not x.problems for x in results)
    content = {"signals": len(results), "clear": clear, "trials": rows}
    write_json(path, content)


def main() -> None:
    """Prints and writes the results."""
    args = parse(Args)
    results = run(args)
    print(table(results))
    raise SystemExit(any(x.problems for x in results))


if __name__ == "__main__":
    main()
