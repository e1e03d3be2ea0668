"""Sentences in the words of a command line, or of Python."""

import warnings

import pytest

from jaxrl_par.training import TrainingConfig
from jaxrl_par.training.words import command_line, option, switch


def test_options_are_said_at_a_command_line_and_arguments_in_python(monkeypatch):
    monkeypatch.setattr("jaxrl_par.training.settings.find_spec", lambda name: None)

    def said():
        (problem,) = TrainingConfig(wandb=True).problems()
        return option("runs_dir"), switch("resume"), problem.rpartition("leave ")[2]

    assert said() == ("runs_dir", "resume=True", "wandb out")
    with pytest.raises(KeyError), command_line():
        with command_line():
            pass
        assert said() == ("--runs-dir", "--resume", "--wandb out")
        raise KeyError
    assert said() == ("runs_dir", "resume=True", "wandb out")


def test_a_warning_is_a_line_at_a_command_line(capsys):
    shown = warnings.showwarning
    with command_line(), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("worker 3: its environments were made anew", stacklevel=1)
    assert capsys.readouterr().err == (
        "warning: worker 3: its environments were made anew\n"
    )
    assert warnings.showwarning is shown
