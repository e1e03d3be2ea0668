"""Several processes are one run: its bits, its files, its end."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

ROOT = Path(__file__).parents[2]
SMALL = [
    *("--num-envs", "8", "--unroll-length", "4", "--log-interval", "5"),
    *("--evaluation-envs", "2", "--evaluation-episodes", "1"),
    *("--no-gif", "--no-tensorboard"),
]
STEPS = ["--total-steps", "1300"]  # 41 updates or some more
LONG = ["--total-steps", "100000000"]
SIZES = {
    "a2c": [],
    "ppo": [],
    "impala": [
        *("--env-name", "CartPole-v1", "--num-minibatches", "1"),
        *("--network.memory", "lstm", "--network.memory-width", "8"),
    ],
    "dqn": [
        *("--replay.capacity", "512", "--replay.min-size", "64"),
        *("--replay.batch-size", "8"),
    ],
}
pytestmark = pytest.mark.slow


def start(
    folder: Path, words: list[str], devices: int = 1, **popen
) -> subprocess.Popen:
    """A process that sees so many devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    flags += re.sub(r"--xla_force\S+", "", os.environ["XLA_FLAGS"])
    return subprocess.Popen(
        [sys.executable, *words, *SMALL, "--runs-dir", str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(
    folder: Path, words: list[str], *own: list[str], devices: int = 1
) -> list[subprocess.Popen]:
    """A process for each of `own`, its own options."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    hosts = ["--hosts.coordinator", address, "--hosts.num-processes", f"{len(own)}"]
    hosts += ["--hosts.join-seconds", "120"]  # of a crowded machine
    ids = [["--hosts.process-id", f"{i}", *x] for i, x in enumerate(own)]
    return [start(folder, [*words, *hosts, *x], devices) for x in ids]


def ends(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each."""
    try:
        said = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(x.returncode, *y) for x, y in zip(processes, said, strict=True)]


def finish(folder: Path, words: list[str], devices: int = 1) -> str:
    """Runs to the end; what was printed."""
    ((code, out, err),) = ends([start(folder, words, devices)])
    assert code == 0, out + err
    return out


def experiment(name: str, devices: int) -> list[str]:
    words = ["-m", "jaxrl_par", name, *SIZES[name], "--name", "run"]
    return [*words, "--num-devices", f"{devices}"]


def launched(name: str, devices: int) -> list[str]:
    module, package, *words = experiment(name, devices)
    return [module, package, "launch", "-n", f"{devices}", "--", *words]


def saved(folder: Path) -> dict:
    """What the last checkpoint says of each leaf: dtype, shape and SHA-256."""
    checkpoints = folder / "run" / "checkpoints"
    step = max(int(x.name) for x in checkpoints.iterdir() if x.name.isdecimal())
    return json.loads((checkpoints / f"{step}/manifest/metadata").read_text())["leaves"]


def wait_for_rows(folder: Path, count: int, process: subprocess.Popen) -> None:
    path = folder / "run" / "metrics.jsonl"
    while not path.exists() or path.read_text().count("\n") < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "processes"),
    [("a2c", 2), ("ppo", 2), ("impala", 2), ("dqn", 2), ("a2c", 4), ("dqn", 4)],
)
def test_processes_with_a_device_each_are_one_process_with_all_devices(
    tmp_path, name, processes
):
    one, many = tmp_path / "one", tmp_path / "many"
    finish(one, [*experiment(name, processes), *STEPS], processes)
    out = finish(many, [*launched(name, processes), *STEPS])
    assert saved(one) == saved(many)
    rows = [
        [json.loads(x)["env_steps"] for x in (y / "run/metrics.jsonl").open()]
        for y in (one, many)
    ]
    # Process 0 alone writes, and says how it went.
    assert rows[0] == rows[1]
    assert out.count("environment steps") == 1
    files = [{x.name for x in (y / "run").iterdir()} for y in (one, many)]
    assert files[0] == files[1]


@pytest.mark.parametrize("heard_by", [0, 1])
def test_a_signal_to_any_process_saves_all_and_one_goes_on(tmp_path, heard_by):
    """With each device's own streams as they were."""
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    words = [*experiment("a2c", 2), "--total-steps", "20000"]
    finish(whole, words, 2)
    both = together(parted, words, [], [])
    wait_for_rows(parted, 2, both[0])
    both[heard_by].send_signal(signal.SIGTERM)
    first, second = ends(both)
    assert [first[0], second[0]] == [75, 75], first[2] + second[2]
    assert "SIGTERM: stopped at update" in first[1]
    assert not [x for x in second[1].splitlines() if not x.startswith("[Gloo]")]
    streams = _streams(parted)
    assert any((x[0] != x[1]).any() for x in streams.values())
    assert "resuming at update" in finish(parted, [*words, "--resume"], 2)
    assert saved(parted) == saved(whole)


def _streams(folder: Path) -> dict[str, np.ndarray]:
    """What each device has for itself: arrays with a row for each."""
    checkpoints = folder / "run" / "checkpoints"
    step = max(int(x.name) for x in checkpoints.iterdir() if x.name.isdecimal())
    with ocp.PyTreeCheckpointer() as reader:
        values = reader.restore(checkpoints / f"{step}/state")
    return {n: np.asarray(x) for n, x in values.items() if n.startswith("local.")}


def test_killed_processes_start_again_to_the_same_bits(tmp_path):
    steps = ["--total-steps", "6000", "--checkpoint-interval", "5"]
    finish(tmp_path / "whole", [*experiment("a2c", 2), *steps], 2)
    supervisor = start(tmp_path, [*launched("a2c", 2), *steps])
    draws = random.Random(0)
    for count in (5, 12):
        wait_for_rows(tmp_path, count, supervisor)
        children = _children(supervisor.pid)
        os.kill(draws.choice(children), signal.SIGKILL)
        while set(_children(supervisor.pid)) & set(children):
            time.sleep(0.05)
    ((code, _, err),) = ends([supervisor])
    assert code == 0, err
    assert err.count("launch: attempt") == 2
    assert saved(tmp_path) == saved(tmp_path / "whole")


def test_all_go_back_to_the_newest_step_that_is_whole(tmp_path):
    """Process 0 finds it, and the others have no files that could say otherwise."""
    words = [*launched("a2c", 2), *STEPS, "--checkpoint-interval", "20"]
    finish(tmp_path, words)
    whole = saved(tmp_path)
    checkpoints = tmp_path / "run" / "checkpoints"
    first, last = sorted(int(x.name) for x in checkpoints.iterdir() if x.is_dir())
    (checkpoints / f"{last}/manifest/metadata").write_text("{}")
    ((code, out, err),) = ends([start(tmp_path, [*words, "--resume"])])
    assert code == 0, err
    assert f"going back to step {first}, because newer ones are damaged" in err
    assert f"resuming at update {first}" in out
    assert saved(tmp_path) == whole


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(x) for x in found]


def test_an_error_of_one_process_ends_all_and_is_told(tmp_path):
    script = str(Path(__file__).with_name("broken.py"))
    words = [script, "--name", "run", "--num-devices", "2", *LONG]
    first, second = ends(together(tmp_path, words, [], []))
    assert second[0] == 1
    assert "KeyError: 'mine'" in second[2]
    assert first[0] == 75, first[2]


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (["--seed", "1"], "\n  seed: 0 in 0, 1 there"),
        (["--a2c.entropy-cost", "0.5"], "\n  a2c.entropy_cost: 0.0 in 0, 0.5 there"),
    ],
)
def test_a_config_that_differs_is_refused_before_training(tmp_path, own, told):
    for code, out, err in ends(together(tmp_path, experiment("a2c", 2), [], own)):
        assert (code, out) == (1, "")
        assert f"process 1 (127.0.0.1) differs from process 0:{told}" in err
    assert not list(tmp_path.iterdir())


def test_a_mesh_that_leaves_a_process_without_devices_is_refused(tmp_path):
    words = [*experiment("a2c", 2), *LONG]
    for code, _, err in ends(together(tmp_path, words, [], [], devices=2)):
        assert code == 1
        told = "num_devices: 2 devices leave process 1 without one: it takes 4"
        assert told in err
    assert not list(tmp_path.iterdir())
