"""The study of Dyna: when a seed has solved the task, and the median of those."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "dyna_study.py"


@pytest.mark.slow
def test_never_is_more_than_any_number():
    study = runpy.run_path(str(SCRIPT))
    returns = ([400.0, 475.0, 9.0], [500.0, 100.0, 9.0])
    curve = [{"rows": 100 * (i + 1), "return": x} for i, x in enumerate(returns)]
    assert study["until_solved"](curve) == [200, 100, None]
    assert study["of_the_run"](curve) == [450.0, 287.5, 9.0]
    assert study["middle"]([200, 100, None]) == 200
    assert study["middle"]([None, 100, None]) is None
    walk = {"steps": [1700.0, 30.0, 19.0, None]}
    told = study["first_short"](walk)
    assert told == {"first": 1700.0, "last": None, "episode": 3}
