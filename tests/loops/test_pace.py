"""The ratio of learning to acting, walked through by hand and at random."""

import random as python_random
from fractions import Fraction

import pytest

from jaxrl_par.errors import RefusedError, problems
from jaxrl_par.loops.pace import Pace, PaceConfig, stuck


def paced(ratio, run_ahead, inserted=1, trained=1):
    pace = Pace(PaceConfig(ratio, run_ahead), inserted, trained)
    pace.ready = True
    return pace


def test_inserts_and_updates_take_turns_as_the_ratio_says():
    pace, done = paced(2.0, 1, inserted=3, trained=2), []
    for _ in range(8):
        step = "update" if pace.may_update() else "insert"
        assert getattr(pace, f"may_{step}")()
        getattr(pace, step)()
        done.append(step)
    assert done == ["insert", "update", "update", "update"] * 2


def test_a_width_in_which_both_would_wait_is_refused_with_the_least_that_works():
    """One row an insert, four an update: three inserts, and neither may go on."""
    with pytest.raises(RefusedError, match="run_ahead must be at least 4, got 3"):
        paced(1.0, 3, inserted=1, trained=4)
    assert walked(paced(1.0, 4, inserted=1, trained=4), python_random.Random(0)) == 0


def walked(pace, draw, steps=500):
    """Does what is allowed at random; how often nothing was."""
    nothing = 0
    for _ in range(steps):
        allowed = [x for x in ("insert", "update") if getattr(pace, f"may_{x}")()]
        nothing += not allowed
        if allowed:
            getattr(pace, draw.choice(allowed))()
        assert pace.debt >= 0
    return nothing


@pytest.mark.parametrize("seed", range(20))
def test_the_least_width_never_stops_and_one_less_does(seed):
    draw = python_random.Random(seed)
    ratio = draw.choice([0.1, 0.75, 1.0, 2.5, 8.0])
    inserted, trained = draw.randint(1, 9), draw.randint(1, 9)
    fits = [
        n for n in range(1, 200) if not stuck(PaceConfig(ratio, n), inserted, trained)
    ]
    least = fits[0]
    assert fits == list(range(least, 200))
    assert walked(paced(ratio, least, inserted, trained), draw) == 0
    if least > 1:
        # By all states that can be reached, in exact numbers.
        insert = Fraction(str(ratio)) * inserted
        most, seen, now = (least - 1) * insert, set(), {Fraction(0)}
        while now - seen:
            seen |= now
            now = {d + insert for d in seen if d + insert <= most}
            now |= {d - trained for d in seen if d >= trained}
        assert any(d + insert > most and d < trained for d in seen)


def test_what_is_inserted_before_it_is_ready_is_no_debt():
    pace = Pace(PaceConfig(1.0, 2), 4, 4)
    for _ in range(100):
        assert pace.may_insert() and pace.may_update()
        pace.insert()
        pace.update()
    pace.ready = True
    assert pace.debt == 0 and not pace.may_update()


def test_a_tenth_stays_a_tenth():
    pace = paced(0.1, None, inserted=1, trained=1)
    for _ in range(10_000):
        for _ in range(10):
            assert not pace.may_update()
            pace.insert()
        pace.update()
    assert pace.debt == 0


@pytest.mark.parametrize("ratio", [1 / 3, 0.001])
def test_the_debt_of_any_ratio_fits_into_a_checkpoint(ratio):
    """1/3 has sixteen digits; in thirds of rows, or thousandths, the debt is small."""
    pace = paced(ratio, None, inserted=4096, trained=1)
    for _ in range(1000):
        pace.insert()
    assert pace.debt == 1000 * 4096


def test_without_a_ratio_nobody_waits():
    pace = paced(None, None)
    for _ in range(5):
        pace.update()
        assert pace.may_update() and pace.may_insert()
    assert pace.debt == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PaceConfig(0.0), "samples_per_insert must be at least 0.001"),
        (PaceConfig(float("nan")), "samples_per_insert must be"),
        (PaceConfig(1.0, 0), "run_ahead must be at least 1"),
        (PaceConfig(None, 3), "give samples_per_insert"),
    ],
)
def test_what_is_out_of_range_is_refused(config, message):
    assert any(message in line for line in problems(config))
