"""The study of LunarLander: what is asked for is possible, and what it comes to."""

import runpy
from pathlib import Path

import pytest

from jaxrl_par.errors import problems

SCRIPT = Path(__file__).parents[2] / "experiments" / "lunar_lander_study.py"


@pytest.fixture(scope="module")
def study():
    return runpy.run_path(str(SCRIPT))


@pytest.mark.slow
def test_every_case_is_possible(study):
    pytest.importorskip("gymnasium")
    args = study["Args"]()
    names = [name for name, _ in study["planned"](args)]
    assert len(names) == len({*names}) == 3 * (6 + 6 + 5)
    for method in args.methods:
        for workers in args.num_workers[1:]:
            settings = args.settings(method, workers, 7)
            assert problems(settings) == [] and settings.seed == 7
    alone = args.settings("dyna", 8, 0)
    assert alone.num_envs == 1 and alone.imagination.branches == 7 * 32


@pytest.mark.slow
def test_rows_are_medians_against_the_fewest_workers(study):
    def case(method, workers, seconds, episodes=10):
        return {
            "method": method, "num_workers": workers, "seconds": seconds, "cores": 2,
            "episodes": episodes, "env_steps": 5, "solved": seconds < 50,
            "best_return": -seconds if episodes else None,
        }  # fmt: skip

    times = ((1, 60.0), (1, 40.0), (1, 44.0), (4, 11.0))
    results = [case("a3c", n, x) for n, x in times] + [case("dyna", 2, 7.0, 0)]
    rows = study["summarized"](results)
    assert [(x["method"], x["num_workers"]) for x in rows] == [
        ("a3c", 1), ("a3c", 4), ("dyna", 2),
    ]  # fmt: skip
    assert rows[0]["seconds"] == 44.0 and rows[0]["solved"] == [False, True, True]
    assert rows[0]["best_return"] == -44.0 and rows[2]["best_return"] is None
    assert rows[1]["speed_up"] == 4.0 and rows[1]["seconds_per_episode"] == 1.1
    assert [x["shares_cores"] for x in rows] == [False, True, False]
    assert rows[2]["speed_up"] == 1.0 and rows[2]["seconds_per_episode"] is None
