"""Simulators by name, on every backend."""

import os
import signal
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from host_checks import check, lander

from jaxrl_par.envs.host import backends, make


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["CartPole-v1", "LunarLander-v3"])
def test_processes_give_the_rows_of_the_stream(name):
    lander(name)
    env = make(name, 2, 0, backend="processes")
    assert env.name == name
    assert env.max_episode_steps == gymnasium.spec(name).max_episode_steps
    steps, *_ = check(env, 100)
    assert steps.last.any()
    maps = [
        open(f"/proc/{process.pid}/maps").read()  # noqa: SIM115
        for process in env._vector_env.processes
    ]
    assert all("numpy" in text and "jaxlib" not in text for text in maps)
    # Signals for a whole group, or for all processes of a job, are not for them.
    for process in env._vector_env.processes:
        assert os.getpgid(process.pid) != os.getpgid(0)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU):
            os.kill(process.pid, number)
    env.step(np.zeros(2, np.int32))
    first, other = env._vector_env.processes
    first.terminate()
    first.join(10)
    assert first.exitcode == -signal.SIGTERM and other.is_alive()
    env.close()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_gymnasium_steps_in_this_thread():
    env = make("CartPole-v1", 2, 0)
    assert env.snapshot() is not None
    known, *_ = check(env, 60)
    again, *_ = check(make("CartPole-v1", 2, 0, backend="gymnasium"), 60)
    np.testing.assert_array_equal(known.obs, again.obs)


def test_a_script_runs_in_processes_and_not_again_in_each(tmp_path):
    # It registers its environment, imports jax and has no guard against being imported.
    script = """
import sys
import jax
sys.path[:0] = [{tests!r}, {root!r}]
import gymnasium
from toy_simulators import Counter
class Mine(Counter): pass
gymnasium.register("Mine-v0", Mine, max_episode_steps=2)
from jaxrl_par.envs.host import make
env = make("Mine-v0", 2, 0, backend="processes")
env.reset()
import numpy as np
print(env.step(np.array([1, 2]))[0].obs[:, 1], env.step(np.array([1, 2]))[0].last)
maps = [open(f"/proc/{{p.pid}}/maps").read() for p in env._vector_env.processes]
print(["jaxlib" in text for text in maps])
env.close()
"""
    tests = os.path.dirname(__file__)
    root = os.path.abspath(os.path.join(tests, *[".."] * 3))
    path = tmp_path / "script.py"
    path.write_text(script.format(tests=tests, root=root))
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    known = ["[1. 2.] [ True  True]", "[False, False]"]
    assert done.stdout.splitlines() == known, done.stderr


def test_importing_it_imports_no_simulator():
    script = (
        "import sys, jaxrl_par.envs.host as host; print(sorted({'gymnasium', 'envpool',"
        " 'ale_py', 'gymnax', 'Box2D'} & set(sys.modules)), host.backends())"
    )
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), *[".."] * 3))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root
    )
    assert done.stdout.strip() == f"[] {backends()}", done.stderr


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("CartPole-v2", {}, "did you mean 'CartPole-v1'"),
        ("CartPole", {"backend": "processes"}, "did you mean 'CartPole-v1'"),
        ("Breakout-MinAtar", {}, "is a pure environment, and no simulator: use"),
        ("IMaze-9x9", {"backend": "processes"}, "is a pure environment, and no sim"),
        ("CartPole-v1", {"backend": "process"}, "did you mean 'processes'"),
        ("CartPole-v1", {"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ("CartPole-v1", {"seed": -1}, "seed must be at least 0, got -1"),
        ("CartPole-v1", {"seed": -1, "backend": "processes"}, "seed must be at least"),
    ],
)
def test_wrong_arguments_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        make(name, **({"num_envs": 2, "seed": 0} | options))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("backend", ["gymnasium", "processes"])
def test_what_to_install_is_said(monkeypatch, backend):
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for module in [m for m in sys.modules if m.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match=r"pip install 'jaxrl-par\[hosts\]'"):
        make("LunarLander-v3", 1, 0, backend=backend)


def test_what_to_install_for_atari_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxrl-par\[hosts\]'"):
        make("ALE/Pong-v5", 1, 0)
