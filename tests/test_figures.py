"""The page of results has no number that is not in a file of results."""

import json
import re
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "experiments" / "figures.py"


@pytest.fixture(scope="module")
def figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # as Python does for a script
        found = runpy.run_path(str(SCRIPT))
    return found | runpy.run_path(str(SCRIPT.parent / "tables" / "markdown.py"))


def test_the_page_is_what_the_results_say(figures):
    kept = (figures["RESULTS"] / "README.md").read_text()
    assert figures["page"]() == kept, "run `python experiments/figures.py`"


def test_results_that_are_not_there_have_no_section(figures, tmp_path):
    (tmp_path / "fault_injection.json").write_text(
        json.dumps({"clear": 3, "faults": 4})
    )
    text = figures["page"](tmp_path)
    assert text.count("\n## ") == 1
    assert "3 of 4 ended clearly." in text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (-0.001, "0.00"),
        (0.123, "0.12"),
        (-1.5, "-1.50"),
        (20.06, "20.1"),
        (500.0, "500"),
        (999.96, "1000"),
        (1234.0, "1.2 k"),
        (45_678.0, "46 k"),
        (2.5e6, "2.50 M"),
        (1234567, "1,234,567"),
        ([1.0, None], "1.00, -"),
        ("name", "name"),
    ],
)
def test_numbers_are_as_short_as_they_say_enough(figures, number, text):
    assert figures["shown"](number) == text


def test_no_file_of_results_names_a_place_of_one_machine(figures):
    for path in sorted(figures["RESULTS"].rglob("*.json")):
        found = re.findall(r'"/[^"]*"', path.read_text())
        assert not found, path.name
