"""`jaxrl-par launch`: one run in processes of this host, started again when one dies.

It is the supervisor of a user without a cluster manager, and no more than that.
"""

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from jaxrl_par.exit_codes import EXIT_CODES, LOST

_TOGETHER = 30.0
"""Seconds after the first end of a process in which the others end by themselves."""
_PR_SET_PDEATHSIG = 1  # of Linux
_HOST = "127.0.0.1"

Ends = Sequence[int]
"""Exit codes of the processes; -9 is that of one that SIGKILL ended."""


class Launch(NamedTuple):
    """What is to be started."""

    num_processes: int
    restarts: int
    command: list[str]
    """With which each process starts, without what says which one it is."""


def launch_command(argv: Sequence[str]) -> None:
    """Runs N processes to their end.

    Raises:
      SystemExit: with the code of the run; 2 if the command line is wrong.
    """
    raise SystemExit(supervise(parse(argv)))


def parse(argv: Sequence[str]) -> Launch:
    """What the command line asks for.

    Raises:
      SystemExit: code 2, after a sentence, if it is wrong.
    """
    parser = argparse.ArgumentParser(
        "jaxrl-par launch",
        usage="jaxrl-par launch -n N [--restarts K] -- EXPERIMENT [OPTIONS]",
        description="Trains in N processes on this host. When one dies, all start"
        " again from the last checkpoint.",
    )
    parser.add_argument("-n", type=int, required=True, help="processes to start")
    parser.add_argument(
        "--restarts", type=int, default=3, help="most times to start again (3)"
    )
    parser.add_argument(
        "command",
        nargs="*",
        metavar="EXPERIMENT",
        help="after --: the name of an experiment or a script, and its options, with"
        " --name, by which it is resumed",
    )
    given = parser.parse_args(argv)
    if given.n < 1:
        parser.error(f"-n must be at least 1, got {given.n}")
    if given.restarts < 0:
        parser.error(f"--restarts must be at least 0, got {given.restarts}")
    if not given.command:
        parser.error("EXPERIMENT is missing, such as -- a2c --num-devices 2")
    names = {word.partition("=")[0] for word in given.command}
    if given.restarts and "--name" not in names:
        parser.error(
            "a run that is to be started again needs a --name after --, or --restarts 0"
        )
    if hosts := sorted(name for name in names if name.startswith("--hosts.")):
        own = {"--hosts.silence", "--hosts.patience", "--hosts.join-seconds"}
        if wrong := [name for name in hosts if name not in own]:
            parser.error(f"{wrong[0]} is what launch says: leave it out")
    first, *options = given.command
    started = [first] if Path(first).suffix == ".py" else ["-m", "jaxrl_par", first]
    return Launch(given.n, given.restarts, [sys.executable, *started, *options])


def supervise(launch: Launch) -> int:
    """Starts the processes, and starts all again when one was lost; the exit code."""
    asked: list[int] = []
    running: list[subprocess.Popen] = []

    def pass_on(number: int, frame: object) -> None:
        asked.append(number)
        _send(running, number)

    before = {number: signal.signal(number, pass_on) for number in EXIT_CODES}
    try:
        for attempt in range(launch.restarts + 1):
            ends = _attempt(launch, running, asked, again=attempt > 0)
            code = _code(ends)
            if asked or code != LOST:
                return code
            told = f"attempt {attempt + 1} ended with {_shown(ends)}"
            left = launch.restarts - attempt
            print(f"launch: {told}; {left} restarts are left", file=sys.stderr)
        return LOST
    finally:
        _send(running, signal.SIGKILL)
        for number, handler in before.items():
            signal.signal(number, handler)


def _attempt(
    launch: Launch, running: list[subprocess.Popen], asked: list[int], *, again: bool
) -> Ends:
    """Runs all processes once, to the end of all; `running` has them meanwhile."""
    options = _options(launch, again)
    readers: list[threading.Thread] = []
    running.clear()
    for number in range(launch.num_processes):
        process = _start([*launch.command, *options, f"{number}"], number)
        running.append(process)
        if process.stderr:
            copy = threading.Thread(target=_copy, args=(number, process.stderr))
            copy.start()
            readers.append(copy)
    for number in asked:  # while they were started
        _send(running, number)
    deadline = None
    while any(process.poll() is None for process in running):
        if deadline is None and any(process.poll() is not None for process in running):
            deadline = time.monotonic() + _TOGETHER
        if deadline and time.monotonic() > deadline:
            _send(running, signal.SIGKILL)
        time.sleep(0.1)
    for reader in readers:
        reader.join()
    return [process.returncode for process in running]


def _options(launch: Launch, again: bool) -> list[str]:
    with socket.socket() as free:
        free.bind((_HOST, 0))
        port = free.getsockname()[1]
    resumed = {"--resume", "--auto-resume"} & set(launch.command)
    return [
        *(["--auto-resume"] if again and not resumed else []),
        *("--hosts.coordinator", f"{_HOST}:{port}"),
        *("--hosts.num-processes", f"{launch.num_processes}"),
        "--hosts.process-id",
    ]


def _start(command: list[str], number: int) -> subprocess.Popen:
    """Process 0 has our terminal; of the others, what goes wrong is shown."""
    quiet = None if number == 0 else subprocess.DEVNULL
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=quiet,
        stderr=None if number == 0 else subprocess.PIPE,
        # A GPU for each; where there are none, nobody asks.
        env={"JAX_LOCAL_DEVICE_IDS": f"{number}", **os.environ},
        # Ctrl-C reaches us alone, and is passed on once.
        start_new_session=True,
        preexec_fn=_ends_with(os.getpid()),
    )


def _ends_with(parent: int) -> Callable[[], None] | None:
    """What a child calls first, so that the system ends it when we are gone, however
    that comes. Only Linux can."""
    if sys.platform != "linux":
        return None
    system = ctypes.CDLL(None)

    def ask() -> None:
        system.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # we were gone before
            os._exit(LOST)

    return ask


def _copy(number: int, stream: IO[bytes]) -> None:
    for line in stream:
        with suppress(OSError, ValueError):
            text = line.decode(errors="replace")
            print(f"[{number}] {text}", end="", file=sys.stderr, flush=True)


def _send(running: Sequence[subprocess.Popen], number: int) -> None:
    for process in running:
        if process.poll() is None:
            process.send_signal(number)


def _code(ends: Ends) -> int:
    """0 if all went well; the code of an error that would come again; else `LOST`."""
    final = [code for code in ends if code > 0 and code != LOST]
    return final[0] if final else LOST * any(ends)


def _shown(ends: Ends) -> str:
    codes = ", ".join(f"{code} in process {i}" for i, code in enumerate(ends) if code)
    return f"exit code {codes}"
