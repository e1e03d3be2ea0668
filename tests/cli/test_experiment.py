"""A2C as a whole, as its script runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = [
    *("--num-envs", "8", "--unroll-length", "4", "--total-steps", "3200"),
    *("--evaluation-envs", "2", "--evaluation-episodes", "1"),
]


def a2c(tmp_path: Path, *options: str, devices: int = 1) -> subprocess.CompletedProcess:
    flags = f"--xla_force_host_platform_device_count={devices}"
    script = str(ROOT / "experiments" / "a2c.py")
    return subprocess.run(
        [sys.executable, script, "--runs-dir", str(tmp_path), *options],
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "XLA_FLAGS": flags}
        | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_it_trains_evaluates_and_draws(tmp_path, devices):
    options = [*SMALL, "--num-devices", str(devices)]
    done = a2c(tmp_path, *options, devices=devices)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "a2c-CartPole-v1"
    assert {path.name for path in folder.iterdir()} == {
        *("checkpoints", "config.json", "curve.png", "episode.gif", "lock"),
        *("metrics.jsonl", "summary.json", "tensorboard"),
    }
    summary = json.loads((folder / "summary.json").read_text())
    assert 3200 <= summary["env_steps"] < 3200 + 8 * 4
    assert set(summary["evaluation"]) == {"sampled_return", "greedy_return"}
    # The same command continues nothing, and says so.
    again = a2c(tmp_path, *options, "--resume", devices=devices)
    assert again.returncode == 0 and "is finished" in again.stdout, again.stderr


@pytest.mark.slow
def test_everything_wrong_is_refused_at_once(tmp_path):
    done = a2c(
        tmp_path, "--env-name", "CartPol-v1", "--unroll-length", "0", "--seeed", "1",
        "--optimizer.name", "adm", "--optimizer.learning-rate", "0",
    )  # fmt: skip
    assert done.returncode == 2
    assert "5 problems with the options" in done.stderr
    assert "did you mean 'CartPole-v1'?" in done.stderr
    assert "did you mean '--seed'?" in done.stderr
    assert "--optimizer.name must be 'adam' or" in done.stderr
    assert "unroll_length must be at least 1, got 0" in done.stderr
    assert "optimizer.learning_rate must be above 0, got 0.0" in done.stderr
    done = a2c(tmp_path, "--num-envs", "9", "--num-devices", "2")
    assert done.returncode == 2
    assert "num_envs must be a multiple of num_devices = 2, got 9" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_defaults_solve_cart_pole(tmp_path):
    returns = []
    for seed in range(3):
        done = a2c(tmp_path, "--seed", str(seed), "--name", str(seed))
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / str(seed) / "summary.json").read_text())
        returns.append(summary["evaluation"]["sampled_return"])
    assert sorted(returns)[1] >= 475, returns
