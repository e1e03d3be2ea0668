"""One command trains, or plays what it has trained."""

import sys

import pytest
from toy_training import Args as Toy

from jaxrl_par import cli, presets
from jaxrl_par.__main__ import main
from jaxrl_par.envs import make

CART_POLE = presets.get("a2c").on("Mine", environments=lambda n: make("CartPole-v1", n))


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--evaluate", "x", "--member", "3"], ["x", "--member", "3"]),
        (["--film", "x.gif", "--evaluate=x"], ["--film", "x.gif", "x"]),
        (["--evaluate", "--help"], ["--help"]),
    ],
)
def test_evaluate_is_the_command_evaluate(words, asked, monkeypatch):
    calls = []
    # The package has a function of the module's name.
    launch = sys.modules["jaxrl_par.cli.launch"]
    monkeypatch.setattr(launch, "evaluate_command", lambda *x: calls.append(x))
    cli.launch(CART_POLE, words, "jaxrl-par toy")
    assert calls == [(asked, CART_POLE, "jaxrl-par toy --evaluate")]


def test_an_evaluation_is_refused_in_a_sentence(tmp_path, capsys):
    for words, code in ((["--evaluate", str(tmp_path)], 1), (["--evaluate"], 2)):
        with pytest.raises(SystemExit) as stop:
            main(["ppo", *words])
        assert stop.value.code == code
    told = capsys.readouterr().err
    assert f"error: {tmp_path} is no folder of a run" in told
    assert told.endswith("FOLDER is missing\n--help lists all options\n")


def test_the_help_of_what_trains_tells_of_it(capsys):
    for run in (lambda: main(["a2c", "--help"]), lambda: cli.launch(CART_POLE, ["-h"])):
        with pytest.raises(SystemExit) as stop:
            run()
        assert stop.value.code == 0
        assert "--evaluate FOLDER plays a run" in capsys.readouterr().out
    # What trains anything else has no such option.
    with pytest.raises(SystemExit) as stop:
        cli.main(print, Toy, ["--evaluate", "x"])
    assert stop.value.code == 2
    assert "unknown option '--evaluate'\n" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_ones_own_experiment_is_evaluated_by_its_script(tmp_path, capsys):
    """`jaxrl-par evaluate` could not know of what it is."""
    options = "--num-envs 4 --unroll-length 4 --total-steps 32 --name run --no-gif"
    small = ["--evaluation-envs", "2", "--evaluation-episodes", "1"]
    cli.launch(CART_POLE, [*options.split(), *small, "--runs-dir", str(tmp_path)])
    trained = capsys.readouterr().out
    cli.launch(CART_POLE, ["--evaluate", str(tmp_path / "run")])
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{tmp_path / 'run'}, after update 2:"
    assert [x.split()[0] for x in told[1:]] == ["sampled", "greedy"]
    assert all(line.split()[-1] in trained for line in told[1:])
