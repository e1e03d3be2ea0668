"""Studies keep their cases, and say what they ran on."""

import json

import jax
import pytest

from jaxrl_par import cli
from jaxrl_par.cli import first_above, kept_cases, machine
from jaxrl_par.presets import ppo
from jaxrl_par.training import TrainingConfig, TrainingError
from jaxrl_par.training.files import FileError


def test_a_study_goes_on_with_what_is_missing(tmp_path):
    """After a case that failed, and without running any twice."""
    ran = []

    def case(name):
        def run():
            ran.append(name)
            if name == "b" and ran.count("b") == 1:
                raise RuntimeError("on the way")
            return {"name": name, "number": len(ran)}

        return name, run

    planned = [case(name) for name in "cba"]
    with pytest.raises(RuntimeError, match="on the way"):
        kept_cases(tmp_path / "cases", planned)
    assert ran == ["c", "b"]
    results = kept_cases(tmp_path / "cases", planned)
    assert ran == ["c", "b", "b", "a"]
    assert [x["name"] for x in results] == ["a", "b", "c"]
    assert kept_cases(tmp_path / "cases", []) == results
    assert kept_cases(tmp_path / "cases", planned) == results and len(ran) == 4


def test_a_study_without_a_case_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="no case has been trained in"):
        kept_cases(tmp_path / "cases", [])


@pytest.mark.parametrize("text", ["", "[]", '{"x": NaN}', '{"x": 1, "x": 2}'])
def test_a_case_that_is_damaged_is_told_by_its_file(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FileError, match=r"a\.json"):
        kept_cases(tmp_path, [])


def test_the_machine_is_described_as_json_can_hold_it():
    described = machine()
    assert json.loads(json.dumps(described)) == described
    assert described["versions"]["jax"] == jax.__version__
    assert len(described["devices"]) == len(jax.devices())
    assert described["cores_used"] >= 1


def test_the_first_of_several_in_a_row_tells_when_it_was_learned():
    times, values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [9.0, 0.0, 9.0, 9.0, 9.0, 9.0]
    assert first_above(5.0, times, values) == 3.0
    assert first_above(5.0, times, values, in_a_row=1) == 1.0
    assert first_above(9.0, times, values) is None
    assert first_above(5.0, times, values, in_a_row=5) is None


@pytest.mark.slow
def test_an_episode_that_is_cut_counts_and_none_that_was_not_played():
    """No CartPole falls within five steps: of two episodes each, the first is cut."""
    settings = ppo.Args(
        num_envs=2, unroll_length=4, training=TrainingConfig(evaluation_max_steps=5)
    )
    learner = cli.compose(settings, ppo.make_agent)
    (point,) = cli.seed_curves(learner, settings, 2, 1, 1, evaluation_envs=3)
    assert point["return"] == [5.0, 5.0] and point["error"] == [0.0, 0.0]
