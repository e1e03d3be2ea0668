"""Students by name: which teachers they take, and what is left of a run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from short_runs import trained

from jaxrl_par import cli, presets, training
from jaxrl_par.algorithms.policy_distillation import PolicyDistillationConfig
from jaxrl_par.cli.replay import ReplayConfig
from jaxrl_par.errors import RefusedError, problems
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.training import TrainingConfig, TrainingError
from jaxrl_par.training.checkpoints import state_hash

pytestmark = pytest.mark.usefixtures("declared")

EXPERIMENT = presets.get("policy_distillation")
GAMES = ("Breakout-MinAtar", "Asterix-MinAtar")


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The folder of an agent of CartPole."""
    return trained(tmp_path_factory.mktemp("taught"))


@pytest.fixture
def folder(tmp_path):
    """Folders of runs, as far as their settings go."""

    def folder(name, **settings):
        path = tmp_path / name
        path.mkdir()
        (path / "config.json").write_text(json.dumps(settings))
        return str(path)

    return folder


def found(**given):
    given = {"env_name": "CartPole-v1"} | given
    return "\n".join(problems(EXPERIMENT.config(**given)))


def test_teachers_are_folders_of_runs_of_the_tasks(folder, tmp_path):
    cart = folder("cart", env_name="CartPole-v1")
    games = tuple(folder(x, env_name=x) for x in GAMES)
    assert not found(teachers=(cart,))
    assert not found(teachers=games, env_name="+".join(GAMES))
    told = "teachers must be a folder of a run for each task in env_name = CartPole-v1"
    assert f"{told}, got 0" in found() and f"{told}, got 2" in found(teachers=games)
    assert "cart is of CartPole-v1, and its task is Acrobot-v1" in found(
        teachers=(cart,), env_name="Acrobot-v1"
    )
    assert "is of Asterix-MinAtar, and its task is Breakout-MinAtar" in found(
        teachers=games[::-1], env_name="+".join(GAMES)
    )
    assert "carts is no folder of a run: it has no config.json" in found(
        teachers=(str(tmp_path / "carts"),)
    )
    Path(cart, "config.json").write_text("{")
    assert "config.json, line 1" in found(teachers=(cart,))


def test_what_students_cannot_is_refused(folder):
    cart = folder("cart", env_name="CartPole-v1")
    games = tuple(folder(x, env_name=x) for x in GAMES)
    both = {"env_name": "+".join(GAMES), "teachers": games}
    assert "acts must be student for topology = threads, got teacher" in found(
        teachers=(cart,), topology="threads"
    )
    assert not found(teachers=(cart,), topology="threads", acts="student")
    assert "normalize: a student sees what its teachers see" in found(
        teachers=(cart,), normalize=True
    )
    assert "show_previous is for one task" in found(show_previous=True, **both)
    assert "num_envs must be as many for each of the 2 tasks" in found(
        num_envs=6, num_devices=2, replay=ReplayConfig(capacity=9600), **both
    )
    settings = TrainingConfig(evaluation_envs=5)
    assert "evaluation_envs must be a multiple of the 2 tasks, got 5" in found(
        training=settings, **both
    )
    unread = PolicyDistillationConfig("nll", temperature=0.5)
    told = found(teachers=(cart,), distil=unread)
    assert "distil.temperature is for loss = kl or cross_entropy, not nll" in told


def small(path, teachers, name="student", **options):
    settings = TrainingConfig(
        runs_dir=str(path), name=name, log_interval=1, gif=False, tensorboard=False,
        evaluation_envs=2, evaluation_episodes=1, **options.pop("training", {}),
    )  # fmt: skip
    options = {
        "env_name": "CartPole-v1", "num_envs": 4, "total_steps": 40,
        "network": NetworkConfig(widths=(8,)),
        "replay": ReplayConfig(capacity=320, min_size=32, batch_size=8),
        **options,
    }  # fmt: skip
    return EXPERIMENT.config(teachers=teachers, training=settings, **options)


@pytest.mark.slow
@pytest.mark.parametrize("acts", ["student", "teacher"])
def test_a_student_goes_on_without_its_teachers_folder_changed(acts, taught, tmp_path):
    """It resumes to the same bits, with teachers as they were; and is loaded and
    played where they are no more."""
    teacher = tmp_path / "teacher"
    shutil.copytree(taught, teacher)
    given = {"acts": acts, "teachers": (str(teacher),)}
    given["distil"] = PolicyDistillationConfig("cross_entropy", 1.0, 0.1)
    optimizer = replace(EXPERIMENT.config.optimizer, anneal=False)
    given["optimizer"] = optimizer
    whole = EXPERIMENT.run(small(tmp_path, name="whole", total_steps=150, **given))
    EXPERIMENT.run(small(tmp_path, name="parts", total_steps=60, **given))
    again = small(
        tmp_path, name="parts", total_steps=150, training={"resume": True}, **given
    )
    resumed = EXPERIMENT.run(again)
    assert state_hash(whole.run) == state_hash(resumed.run)
    shutil.rmtree(teacher)
    with training.load(whole.directory.path) as run:
        expected = whole.run.learner.params.network
        jax.tree.map(np.testing.assert_array_equal, run.params.student, expected)
        assert run.params.teachers == []
        assert run.evaluate() == whole.summary.evaluation


@pytest.mark.slow
def test_teachers_of_dqn_and_of_ppg_teach(tmp_path):
    """Whatever they are made of; the one acts by chance at its final rate."""
    sizes = {"replay": ReplayConfig(capacity=320, min_size=32, batch_size=8)}
    folders = [
        trained(tmp_path, "dqn", "dqn", **sizes),
        trained(tmp_path, "ppg", "ppg", num_minibatches=2),
    ]
    for i, folder in enumerate(folders):
        run = EXPERIMENT.run(small(tmp_path, (folder,), name=f"student{i}"))
        assert run.summary.updates == 2


@pytest.mark.slow
def test_a_teacher_of_other_specs_is_refused_with_both(tmp_path):
    """The same name, and another environment: it was shown what it did before."""
    folder = trained(tmp_path, show_previous=True)
    with pytest.raises(TrainingError) as refused:
        EXPERIMENT.run(small(tmp_path, (folder,)))
    told = str(refused.value)
    assert "the student of CartPole-v1 was made for observations float32 (4,)" in told
    assert "teacher was made for observations" in told and ".reward" in told


@pytest.mark.slow
def test_a_damaged_teacher_is_refused(taught, tmp_path):
    teacher = tmp_path / "teacher"
    shutil.copytree(taught, teacher)
    for path in (teacher / "checkpoints").rglob("*"):
        if path.is_file() and path.stat().st_size > 200:
            path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TrainingError, match="teacher"):
        EXPERIMENT.run(small(tmp_path, (str(teacher),)))


def test_continuous_actions_have_no_student(folder):
    pendulum = folder("pendulum", env_name="Pendulum-v1")
    args = EXPERIMENT.config(env_name="Pendulum-v1", teachers=(pendulum,))
    with pytest.raises((RefusedError, TrainingError), match="chooses one of some"):
        cli.compose(args, EXPERIMENT.make_agent)
