"""Demonstrations from the command line: recorded, and learned from."""

import json
from dataclasses import replace

import numpy as np
import pytest

from jaxrl_par import presets
from jaxrl_par.cli.record import record_command
from jaxrl_par.errors import RefusedError
from jaxrl_par.networks import NetworkConfig
from jaxrl_par.training import TrainingConfig, TrainingError


@pytest.mark.slow
def test_what_an_expert_shows_is_what_a_preset_learns_from(tmp_path, capsys):
    out = tmp_path / "shown"
    asked = ["--expert", "IMaze-5x5", "--out", str(out), "--num-steps", "300"]
    record_command(asked)
    assert "303 steps of IMaze-5x5" in capsys.readouterr().out
    about = json.loads((out / "manifest.json").read_text())["about"]
    assert (
        about["agent"] == "expert" and about["mean_return"] == 1.0 and about["greedy"]
    )
    usual = presets.get("r2d3").config(env_name="IMaze-5x5")
    given = replace(usual, replay=replace(usual.replay, demonstrations=str(out)))
    shown = given.demonstrated()
    assert shown.reward.sum() >= about["episodes"] > 30
    # As the expert shows it without a folder.
    alone = replace(
        usual, replay=replace(usual.replay, expert_steps=300)
    ).demonstrated()
    np.testing.assert_array_equal(alone.action, shown.action)
    other = replace(given, show_previous=False)
    with pytest.raises(TrainingError, match=r"replay\.demonstrations: .*other observ"):
        other.demonstrated()


@pytest.mark.slow
def test_a_run_shows_what_it_learned(tmp_path):
    experiment = presets.get("dqn")
    usual = experiment.config()
    training = replace(usual.training, runs_dir=str(tmp_path), name="run", gif=False)
    training = replace(training, evaluation_envs=1, evaluation_episodes=1)
    experiment.run(replace(usual, total_steps=64, training=training))
    for name, options in (("best", []), ("drawn", ["--no-greedy"])):
        out = tmp_path / name
        asked = [str(tmp_path / "run"), "--out", str(out), "--num-steps", "100"]
        record_command([*asked, "--num-envs", "2", *options])
        replay = replace(usual.replay, demonstrations=str(out))
        shown = replace(usual, replay=replay).demonstrated()
        assert shown.steps.obs.shape[1:] == (2, 4) and shown.reward.sum() >= 98
    about = json.loads((out / "manifest.json").read_text())["about"]
    assert not about["greedy"] and about["env_name"] == "CartPole-v1"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--expert", "CartPole-v1"], "expert: there is no expert of CartPole-v1"),
        (["run", "--num-steps", "0"], "num_steps must be at least 1, got 0"),
        (["run", "--num-step", "3"], "did you mean '--num-steps'?"),
        (["run", "other"], "one FOLDER is taken, got 'run' and 'other'"),
    ],
)
def test_options_that_are_wrong_are_told(asked, told, capsys):
    with pytest.raises(SystemExit) as stop:
        record_command(asked)
    assert stop.value.code == 2 and told in capsys.readouterr().err


def test_what_cannot_be_recorded_is_told(tmp_path):
    for asked in ([], ["run", "--expert", "IMaze-9x9"]):
        with pytest.raises(RefusedError, match="give the FOLDER of a run, or else an"):
            record_command(asked)
    (tmp_path / "note").touch()
    with pytest.raises(TrainingError, match="is not empty: give another folder"):
        record_command(["--expert", "IMaze-9x9", "--out", str(tmp_path)])
    with pytest.raises(TrainingError, match="is no folder of a run"):
        record_command([str(tmp_path), "--out", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    """With the priorities of demonstrations."""
    experiment = presets.get("r2d3")
    usual = experiment.config(env_name="IMaze-5x5")
    network = NetworkConfig(widths=(8,), memory="lstm", memory_width=8)
    replay = replace(usual.replay, updates_per_step=1, capacity=5120, min_size=1280)
    replay = replace(replay, batch_size=8, demonstration_ratio=0.5, expert_steps=1000)

    def state_after(name, total_steps, resume=False):
        training = TrainingConfig(
            runs_dir=str(tmp_path), name=name, resume=resume, gif=False,
            tensorboard=False, evaluation_envs=1, evaluation_episodes=1,
        )  # fmt: skip
        args = replace(
            usual, total_steps=total_steps, network=network, replay=replay,
            optimizer=replace(usual.optimizer, anneal=False), training=training,
        )  # fmt: skip
        experiment.run(args)
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        return summary["state_sha256"]

    whole = state_after("whole", 8000)
    assert state_after("parts", 4000) != whole
    assert state_after("parts", 8000, resume=True) == whole
