"""The game behind the study of self-play, against what is known of it."""

import runpy
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "self_play_study.py"


@pytest.fixture(scope="module")
def study():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def game(study):
    return study["tic_tac_toe"]()


def anyone(game):
    return game.allowed / game.allowed.sum(1, keepdims=True)


def best(study, game):
    """Any of the best moves, each as likely."""
    values = study["backed_up"](game, lambda x, _: x.max(1))
    actions = study["ahead"](game, values)
    found = actions == actions.max(1, keepdims=True)
    return found / found.sum(1, keepdims=True), values


def test_the_game_is_the_one_that_is_known(study, game):
    """5,478 positions, of which 958 are ends; nobody wins who plays well; at random
    who begins wins .585, and the other one .288 of the games."""
    assert len(game.boards) == 5_478 - 958
    assert {*np.unique(game.moves)} == {*range(9)}
    perfect, values = best(study, game)
    assert values[0] == 0 and {*np.unique(values)} == {-1, 0, 1}
    chance = study["backed_up"](game, lambda x, i: study["mean"](anyone(game)[i], x))
    assert chance[0] == pytest.approx(0.5849 - 0.2881, abs=2e-4)
    result = study["result"]
    assert result(game, anyone(game), anyone(game)) == pytest.approx(0)
    assert result(game, perfect, perfect) == 0
    assert result(game, perfect, anyone(game)) > 0.8
    assert result(game, anyone(game), perfect) < -0.8


def test_positions_are_met_as_often_as_games_are_so_long(study, game):
    """The empty board once in a game, each of its nine followers in a ninth; at random
    a game has 7.6 moves."""
    often = study["met"](game, anyone(game), anyone(game))
    assert often[0] == 1
    np.testing.assert_allclose(often[game.moves == 1], 1 / 9)
    assert often.sum() == pytest.approx(7.62, abs=0.01)


def test_who_always_plays_well_is_judged_so(study, game):
    perfect, values = best(study, game)
    told = study["judged"](game, perfect, values, 1.0)
    assert told["best_own"] == told["best_random"] == 1
    assert told["value_error"] == 0 and 0 < told["met"] < 1
    wrong = study["judged"](game, perfect, values + 0.5, 1.0)
    assert wrong["value_error"] == pytest.approx(0.5)
    told = study["judged"](game, anyone(game), values, 1.0)
    assert told["best_random"] < 0.5 and told["value_error"] > 0.3
    discounted = study["backed_up"](game, lambda x, _: x.max(1), 0.5)
    assert {*np.abs(discounted[discounted != 0])} <= {0.5**k for k in range(9)}
