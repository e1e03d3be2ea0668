"""Declared metrics: every name that an experiment logs has a unit and a meaning."""

import subprocess
import sys

import jax
import pytest
from short_runs import trained

from jaxrl_par import cli, presets, random
from jaxrl_par.training.metrics import declared, undeclared

HERE = {"sac": "Pendulum-v1", "td3": "Pendulum-v1", "ddpg": "Pendulum-v1"}
HERE |= {"r2d3": "IMaze-5x5", "maml": "Navigation", "q_prop": "Pendulum-v1"}


def test_names_are_known_alone_and_by_their_beginning():
    names = {"episode_return", "setting_gamma", "greedy_return", "unheard_of"}
    assert undeclared(names) == {"unheard_of"}


def test_each_has_a_unit_and_a_meaning_in_one_line():
    assert declared()["jaxrl_par.loops.run"]["env_steps"].unit == "environment steps"
    for module, metrics in declared().items():
        for name, (unit, meaning) in metrics.items():
            assert unit and meaning and "\n" not in meaning, (module, name)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", presets.SUMMARIES)
def test_what_a_compiled_experiment_logs_is_declared(name, tmp_path):
    experiment = presets.get(name)
    given = {"env_name": HERE.get(name, "CartPole-v1")}
    if name == "policy_distillation":
        given["teachers"] = (trained(tmp_path),)
    args = experiment.config(topology="compiled", total_steps=100_000, **given)
    placed = cli.place(args, cli.compose(args, experiment.make_agent))
    _, metrics = jax.eval_shape(
        lambda key: placed.step(placed.init(key)), random.key(0)
    )
    assert undeclared(set(metrics)) == set()


@pytest.mark.slow
def test_a_command_prints_them_without_a_warning():
    done = subprocess.run(
        [sys.executable, "-m", "jaxrl_par.training.metrics"],
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and not done.stderr
    assert "episode_return" in done.stdout and "inference_wait_ms" in done.stdout
