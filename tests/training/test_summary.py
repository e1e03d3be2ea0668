"""What a run comes to."""

from dataclasses import asdict

import pytest

from jaxrl_par.training.files import FileError, write_json
from jaxrl_par.training.summary import Summary, latest_return

SUMMARY = Summary(
    "toy", 20, 80, 17.0, 100.0, 0.8, 1.0, 2, 10**8, 0, "abc", {"x": 1.0, "y": None}
)


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([], None),
        ([None, None], None),
        ([1.0, None, 3.0], 3.0),
        ([*map(float, range(20)), None], 18.5),
        ([[0.0, 0.0], [2.0, None]], 2.0),
    ],
)
def test_the_return_is_that_of_the_last_tenth_which_has_one(returns, expected):
    rows = [{"episode_return": x} for x in returns]
    assert latest_return([*rows, {}]) == expected


def test_a_summary_is_read_as_it_was_written(tmp_path):
    SUMMARY.save(tmp_path / "summary.json")
    assert Summary.read(tmp_path / "summary.json") == SUMMARY
    assert "y                    -" in SUMMARY.text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"line 1: must be an object, got \[\]"),
        (None, "line 1: must be an object, got null"),
        ({"updates": None}, "line 3: no summary of a run, whose updates is null"),
        ({"updates": 2.5}, "whose updates is 2.5"),
        ({"seconds": "1"}, 'whose seconds is "1"'),
        ({"evaluation": []}, r"whose evaluation is \[\]"),
        ({"evaluation": {"x": "good"}}, "whose evaluation is "),
        ({"more": 1}, "whose more is 1"),
    ],
)
def test_a_summary_that_was_changed_by_hand_is_a_sentence(tmp_path, content, message):
    path = tmp_path / "summary.json"
    whole = asdict(SUMMARY)
    write_json(path, whole | content if content else content)
    with pytest.raises(FileError, match=message) as error:
        Summary.read(path)
    assert str(error.value).startswith(f"{path}, line ")
    del whole["seconds"]
    write_json(path, whole)
    with pytest.raises(FileError, match="whose seconds is nothing"):
        Summary.read(path)
