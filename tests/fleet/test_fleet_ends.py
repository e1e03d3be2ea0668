"""Fleets with a cluster of their own: what they leave behind, which is nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fleets import is_alive

CHILD = Path(__file__).parent / "fleet_child.py"
pytestmark = pytest.mark.slow


def child(mode: str, **options) -> subprocess.Popen:
    paths = [CHILD.parent.parent.parent, CHILD.parent, *filter(None, sys.path)]
    environ = os.environ | {"PYTHONPATH": ":".join(map(str, paths))}
    return subprocess.Popen(
        [sys.executable, str(CHILD), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
        **options,
    )


def wait_for(is_so, seconds: float = 90) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.2)
    return is_so()


def listens_elsewhere(pids: set[int]) -> list[str]:
    """Sockets of these processes that hosts other than this one can reach."""
    inodes = set()
    for pid in pids:
        for file in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(os.readlink(file))
            except OSError:
                continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            local = fields[1].rpartition(":")[0]
            mapped = "0000000000000000FFFF00000100007F"
            loopback = ("0100007F", "0" * 24 + "01000000", mapped)
            listens = fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes
            if listens and local not in loopback:
                found.append(fields[1])
    return found


@pytest.mark.parametrize("how", ["close", "driver", "raylet", "stopped"])
def test_nothing_is_left(how):
    """Closed; the driver killed; its node's part of Ray killed; ended by an actor that
    does nothing any more."""
    shared = set(os.listdir("/dev/shm"))
    driver = child("runs")
    assert driver.stdin and driver.stdout
    try:
        told = json.loads(driver.stdout.readline())
        started = set(told["all"])
        assert set(told["actors"]) <= started and len(told["raylet"]) == 1
        assert not listens_elsewhere(started)
        if how == "driver":
            driver.kill()
        elif how == "raylet":
            os.kill(told["raylet"][0], signal.SIGKILL)
        elif how == "stopped":
            os.kill(told["actors"][0], signal.SIGSTOP)
        else:
            driver.stdin.write("\n")
            driver.stdin.flush()
        code = driver.wait(120)
    finally:
        driver.kill()
    if how in ("close", "stopped"):
        assert code == (how == "stopped")
        assert not Path(told["folder"]).exists()
    elif how == "raylet":
        # Ray ends its driver, and does not always come to say why; the run goes on from
        # its last checkpoint.
        assert code == 1
    assert wait_for(lambda: not any(map(is_alive, started)))
    assert set(os.listdir("/dev/shm")) <= shared


def test_a_worker_of_a_pure_environment_is_the_compiled_program():
    ours = child("compiled", stderr=subprocess.PIPE)
    output, errors = ours.communicate(timeout=280)
    assert ours.returncode == 0, errors
    first, second = output.split()[-2:]
    assert first == second


def test_actors_on_several_nodes_and_one_node_lost():
    """Two raylets beside the head, each with a store of its own: the numbers are those
    of threads, and what was on a node that is killed is made anew on the other one."""
    driver = child("nodes")
    try:
        out, _ = driver.communicate(timeout=280)
    finally:
        driver.kill()
    assert driver.returncode == 0
    told = json.loads(out.splitlines()[-1])
    assert told["nodes"] == 2
    assert told["hash"] == told["threads"]
    assert told["updates"] == 12
    assert told["restarts"] >= 1 and max(told["generations"]) >= 1
