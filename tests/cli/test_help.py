"""The help: every option once, in whole sentences, with what a run would take."""

import re
from dataclasses import dataclass

import pytest
from toy_training import Args

from jaxrl_par import presets
from jaxrl_par.cli.fields import options
from jaxrl_par.cli.help import help_of


@dataclass(frozen=True)
class Inherited(Args):
    """Options of another."""

    work: int = 7
    part_of: int | None = None
    """Two lines, of which the second
    must not begin a line of the help."""


@pytest.mark.parametrize("name", presets.SUMMARIES)
def test_it_has_every_option_of_every_preset_once(name):
    config = presets.get(name).config
    told = help_of(config(), f"jaxrl-par {name}", "")
    shown = re.findall(r"^  (--[^\s,]+)(?:, (--[^\s,]+))?", told, re.MULTILINE)
    shown = [option for pair in shown for option in pair if option]
    assert sorted(shown) == sorted({option for option, *_ in options(config)})
    assert max(map(len, told.splitlines())) <= 88
    assert not re.search(r"/(home|root|tmp|usr)/", told)


def test_strings_are_joined_inherited_and_followed_by_the_value_there():
    told = help_of(Inherited(seed=12), "toy", "One.\n\nTwo.")
    assert told.startswith(
        "usage: toy [OPTIONS]\n\nOptions of another.\n\nOne.\n\nTwo.\n\n"
    )
    assert "  --part-of INT or None\n      Two lines, of which the second must" in told
    assert "matrices in each update, to make it slow. (default: 7)" in told
    assert "  --seed INT\n      (default: 12)" in told
    assert "  --part.widths [INT ...]\n      (default: 3 4)" in told
    assert "\n\ntraining: Folder, metrics, checkpoints and evaluation" in told
    assert "  --name TEXT or None\n      Folder of the run." in told


def test_it_is_as_wide_as_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    assert max(map(len, help_of(Args(), "toy", "").splitlines())) <= 60
