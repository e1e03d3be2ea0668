"""A script as a user runs it: signals, exit codes, the command line, SIGKILL."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "toy_training.py"
# Long enough to be met in the middle: a chunk takes some hundredths of a second.
SLOW = ["--num-updates", "400", "--work", "30", "--checkpoint-interval", "5"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def start(tmp_path: Path, *options: str, **popen) -> subprocess.Popen:
    command = [sys.executable, str(TOY), "--runs-dir", str(tmp_path), *options]
    return subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


def finish(tmp_path: Path, *options: str) -> dict:
    """Runs to the end; the summary."""
    process = start(tmp_path, *options)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    return json.loads((tmp_path / "toy" / "summary.json").read_text())


def wait_for_rows(path: Path, count: int, process: subprocess.Popen) -> None:
    while not path.exists() or path.read_text().count("\n") < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    """SHA-256 of the state after the slow run, when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("whole")
    return finish(folder, *SLOW, "--name", "toy")["state_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)]
)
def test_a_signal_saves_and_the_run_resumes_to_the_same_bits(
    tmp_path, whole, number, code
):
    options = [*SLOW[:-1], "0", "--name", "toy"]
    process = start(tmp_path, *options)
    wait_for_rows(tmp_path / "toy" / "metrics.jsonl", 2, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert f"{number.name}: stopped at update" in out
    updates = int(out.split("stopped at update ")[1].split(".")[0].replace(",", ""))
    rows = (tmp_path / "toy" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["updates"] == updates < 400
    assert (tmp_path / "toy" / "checkpoints" / str(updates)).is_dir()
    summary = finish(tmp_path, *options, "--resume")
    assert summary["state_sha256"] == whole
    rows = (tmp_path / "toy" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["updates"] for row in rows] == list(range(5, 401, 5))


@pytest.mark.slow
def test_a_second_interrupt_ends_even_a_chunk_that_takes_forever(tmp_path):
    # A chunk of 5 updates of which each takes days.
    process = start(tmp_path, "--name", "toy", "--work", "100000000")
    # The metrics are opened right before the first chunk is compiled and started.
    while not (tmp_path / "toy" / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(2)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.mark.slow
def test_what_a_user_can_repair_is_an_error_without_a_trace(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "thesis.tex").write_text("mine")
    process = start(tmp_path, "--name", "toy")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.startswith("error: ") and "Traceback" not in err
    process = start(tmp_path, "--name", "nan", "--nan-from", "3", "--num-updates", "50")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "not applied, in each of updates 4 to 15" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_output_is_lines_in_a_pipe_and_a_bar_on_a_terminal(tmp_path):
    process = start(tmp_path, "--name", "lines", "--num-updates", "200")
    out, _ = process.communicate(timeout=120)
    assert "\x1b" not in out
    lines = [line for line in out.splitlines() if line.startswith("lines ")]
    assert 10 <= len(lines) <= 21 and "100%" in lines[-1]

    main, other = pty.openpty()
    command = [sys.executable, str(TOY), "--runs-dir", str(tmp_path), "--name", "bar"]
    with subprocess.Popen(
        command, env=environment() | {"TERM": "xterm"}, stdout=other, stderr=other
    ) as process:
        os.close(other)
        shown = b""
        while process.poll() is None:
            try:
                shown += os.read(main, 65536)
            except OSError:  # the other side was closed
                break
    os.close(main)
    assert process.returncode == 0
    assert b"\x1b[" in shown and b"100%" in shown and b"steps/s" in shown


@pytest.mark.slow
def test_killed_runs_of_a2c_resume_to_the_same_bits():
    script = ROOT / "experiments" / "benchmarks" / "kill_and_resume.py"
    done = subprocess.run(
        [sys.executable, str(script), "--num-kills", "3", "--seed", "1"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["equal"] == 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_random_signals_in_any_phase_end_clearly():
    script = ROOT / "experiments" / "benchmarks" / "signal_storm.py"
    done = subprocess.run(
        [sys.executable, str(script), "--num-signals", "4", "--seed", "3"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert done.returncode == 0, done.stderr
    assert "4 clear ends of 4" in done.stdout
