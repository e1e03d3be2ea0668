"""What is wrong with a command line is said before a device is touched."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrl_par import cli, presets

EXPERIMENTS = Path(__file__).parent.parent.parent / "experiments"
PROBE = """
import runpy, sys
script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
try:
    runpy.run_path(script, run_name="__main__")
finally:
    from jax._src import xla_bridge
    print("backends:", list(xla_bridge._backends))
"""


def refused(script, *options):
    command = [sys.executable, "-c", PROBE, str(EXPERIMENTS / script), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "backends: []" in done.stdout
    return done.stderr


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "script", ["a3c.py", "a2c.py", "ppo.py", "reinforce.py", "sweep.py", "async_q.py"]
)
def test_a_wrong_environment_gets_the_nearest_name(script):
    assert "did you mean 'CartPole-v1'" in refused(script, "--env-name", "Cartpole-v1")


@pytest.mark.slow
def test_members_that_devices_cannot_share_are_refused():
    message = refused("sweep.py", "--num-devices", "5")
    assert "num_devices must divide the 12 members, got 5" in message


@pytest.fixture
def told(capsys):
    """What an experiment says to options that it refuses."""

    def told(experiment, options):
        with pytest.raises(SystemExit) as stop:
            cli.parse(presets.get(experiment).config, options.split())
        assert stop.value.code == 2
        return capsys.readouterr().err

    return told


def test_a_misspelled_option_gets_the_nearest_name(told):
    assert "did you mean '--num-envs'" in told("ppo", "--num-evns 3")


def test_all_wrong_values_are_listed_at_once(told):
    options = "--unroll-length 0 --optimizer.learning-rate -1 --ppo.gamma 2"
    message = told("ppo", options)
    assert "unroll_length must be at least 1, got 0" in message
    assert "optimizer.learning_rate must be above 0, got -1.0" in message
    assert "ppo.gamma must be in [0, 1], got 2.0" in message


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--halving.first 15", "must be a multiple of log_interval = 10"),
        ("--halving.first 2000", "must be below the 976 steps of training"),
        ("--halving.first 10 --num-devices 2", "num_devices must be 1 for halving"),
        ("--halving.first 10 --halving.eta 13", "at most the 12 members, got 13"),
        (
            "--halving.first 10 --evolution.interval 10 --num-random 6",
            "halving.first and evolution.interval exclude each other",
        ),
    ],
)
def test_halving_that_does_not_fit_is_refused(told, options, sentence):
    assert sentence in told("sweep", f"--log-interval 10 {options}")


def test_minibatches_that_do_not_divide_are_refused(told):
    options = "--num-envs 6 --num-minibatches 4 --network.memory lstm"
    message = told("ppo", options)
    assert "num_minibatches must divide the 6 rows or sequences" in message


def test_models_that_do_not_fit_are_refused(told):
    options = "--env-name IMaze-8x8 --learner.memory-width 30 --distillation.capacity 0"
    message = told("actor_learner_distillation", options)
    assert "did you mean 'IMaze-9x9'" in message
    assert "learner." in message and "multiple of the 4 heads" in message
    assert "distillation.capacity must be at least 1, got 0" in message


def test_a_replay_that_trajectories_do_not_fill_is_refused(told):
    message = told("actor_learner_distillation", "--distillation.capacity 100")
    assert "distillation.capacity must be a multiple of the 64 environments" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ppo.py --topology delayed", "this learner has no halves (contribute, apply)"),
        ("reinforce.py --topology threads", "topology must be compiled here"),
        ("a2c.py --repeat x", "repeat is for topology = threads, workers or gossip"),
        ("a3c.py --normalize", "normalize is for topology = compiled, delayed or"),
        ("a2c.py --env-name LunarLander-v3", "take threads or workers"),
    ],
)
def test_what_a_topology_does_not_take_is_refused(command, said):
    if "LunarLander" in command:
        pytest.importorskip("gymnasium")
    assert said in refused(*command.split())


COUNTED = {
    "accelerator": ("num_envs", "rows", "repetitions", "seconds"),
    "bridge": ("pairs",),
    "compile": ("limit",),
    "conformance": ("num_envs", "num_steps", "limit"),
    "evolution": ("num_members", "widths", "max_steps", "num_timed", "repetitions"),
    "fleet": ("num_actors", "pairs", "seconds"),
    "fleet_actors": ("num_envs", "pairs", "seconds"),
    "lqr": ("num_states", "num_steps", "state_size", "num_actions", "rounds", "calls"),
    "off_policy": ("total_steps",),
    "pairs": ("pairs", "timeout"),
    "replay": ("capacities", "rows_kept", "iterations", "repetitions"),
    "resets": ("num_envs", "num_steps", "per_step", "pool_size", "rounds"),
    "selection": ("num_members", "interval", "num_updates", "rounds"),
    "suites": ("num_envs", "num_steps", "per_step", "limit", "rounds"),
    "throughput": ("num_envs", "unroll_length", "chunk_steps", "repetitions"),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", COUNTED)
def test_a_benchmark_refuses_a_count_of_0(name, capsys, monkeypatch):
    folder = EXPERIMENTS / "benchmarks"
    monkeypatch.syspath_prepend(folder)
    config = runpy.run_path(str(folder / f"{name}.py"))["Args"]
    options = [f"--{field.replace('_', '-')}=0" for field in COUNTED[name]]
    with pytest.raises(SystemExit) as stop:
        cli.parse(config, options)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([x for x in lines if x.endswith(("got 0", "got 0.0"))]) == len(options)
