"""What a run comes to."""

import pytest

from jaxrl_par.training.summary import latest_return


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
