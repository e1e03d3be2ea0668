"""The supervisor: starts all, starts all again, leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxrl_par.hosts import launcher
from jaxrl_par.hosts.launcher import Launch, parse, supervise

CHILD = str(Path(__file__).with_name("child.py"))
ROOT = Path(CHILD).parents[2]


def launch(folder: Path, plan: str, processes: int = 2, restarts: int = 3) -> int:
    command = [sys.executable, CHILD, plan, "--name", str(folder)]
    return supervise(Launch(processes, restarts, command))


def started(folder: Path) -> dict[str, dict]:
    """What each process of each attempt left, by "process-attempt"."""
    paths = [path for path in folder.iterdir() if not path.suffix]
    return {path.name: json.loads(path.read_text()) for path in sorted(paths)}


def test_each_process_knows_who_it_is_and_process_0_alone_speaks(tmp_path, capfd):
    assert launch(tmp_path, "0 0") == 0
    found = started(tmp_path)
    ports = set()
    for i in range(2):
        *_, where, processes, number, _, process = found[f"{i}-0"]["words"]
        assert (processes, number, process) == ("--hosts.num-processes", "2", f"{i}")
        ports.add(where)
        assert found[f"{i}-0"]["gpu"] == f"{i}"
    assert len(ports) == 1
    told = capfd.readouterr()
    assert told.out == "out of 0\n"
    assert set(told.err.splitlines()) == {"error of 0", "[1] error of 1"}


def test_all_start_again_from_the_last_checkpoint_when_one_is_lost(tmp_path, capfd):
    """Killed, ended by the loss of another, or stopped by its cluster."""
    assert launch(tmp_path, "75 -9/-6 75/0 0") == 0
    found = started(tmp_path)
    resumed = {name: "--auto-resume" in x["words"] for name, x in found.items()}
    assert resumed == {
        "0-0": False, "1-0": False, "0-1": True, "1-1": True, "0-2": True, "1-2": True,
    }  # fmt: skip
    told = capfd.readouterr().err
    assert (
        "launch: attempt 1 ended with exit code 75 in process 0, -9 in process 1; 3"
        " restarts are left"
    ) in told


def test_restarts_are_counted(tmp_path):
    assert launch(tmp_path, "75 75/75 75/75 75/0 0", restarts=2) == 75
    assert len(started(tmp_path)) == 6


@pytest.mark.parametrize("code", [1, 2, 130])
def test_an_error_that_would_come_again_is_the_end(tmp_path, code):
    assert launch(tmp_path, f"75 {code}/0 0") == code
    assert len(started(tmp_path)) == 2


def test_who_does_not_end_after_another_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "_TOGETHER", 0.3)
    assert launch(tmp_path, "75 hang/0 0") == 0


@pytest.mark.parametrize("words", [["--resume"], ["--auto-resume"]])
def test_a_run_that_is_resumed_anyway_is_not_told_twice(words, tmp_path):
    command = [sys.executable, CHILD, "75/0", "--name", str(tmp_path), *words]
    assert supervise(Launch(1, 1, command)) == 0
    given = started(tmp_path)["0-1"]["words"]
    assert [x for x in given if x.endswith("resume")] == words


def in_background(folder: Path, plan: str) -> tuple[subprocess.Popen, list[int]]:
    """The launcher as a process, and those of two that it has started."""
    words = ["launch", "-n", "2", "--", CHILD, plan, "--name", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxrl_par", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list(folder.glob("?-?"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    return process, [x["pid"] for x in started(folder).values()]


def gone(pids: list[int]) -> bool:
    """Whether all have ended, within a while."""
    for _ in range(250):
        if not any(Path(f"/proc/{pid}").exists() and not _zombie(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def _zombie(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
        return state.split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_signal_is_passed_on_and_nothing_starts_again(tmp_path):
    process, pids = in_background(tmp_path, "wait wait/0 0")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75
    assert gone(pids)
    assert len(started(tmp_path)) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="the system must end the children")
def test_no_process_is_left_when_the_launcher_is_killed(tmp_path):
    process, pids = in_background(tmp_path, "hang hang")
    process.kill()
    process.wait(30)
    assert gone(pids)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-n", "0", "--", "a2c", "--name", "x"], "-n must be at least 1, got 0"),
        (["-n", "2", "--"], "EXPERIMENT is missing"),
        (["-n", "2", "--", "a2c"], "needs a --name after --, or --restarts 0"),
        (
            ["-n", "2", "--", "a2c", "--name=x", "--hosts.process-id", "1"],
            "--hosts.process-id is what launch says: leave it out",
        ),
        (["-n", "2", "--restarts", "-1", "--", "a2c"], "--restarts must be at least 0"),
    ],
)
def test_a_wrong_command_line_is_refused_in_a_sentence(words, told, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(words)
    assert stop.value.code == 2
    assert told in capsys.readouterr().err


def test_an_experiment_is_a_name_or_a_script():
    one = parse(["-n", "2", "--restarts", "0", "--", "a2c", "--hosts.silence", "5"])
    started = [sys.executable, "-m", "jaxrl_par", "a2c", "--hosts.silence", "5"]
    assert one == Launch(2, 0, started)
    other = parse(["-n", "3", "--", "experiments/a2c.py", "--name", "x"])
    assert other.command[1] == "experiments/a2c.py"
    assert other.restarts == 3
