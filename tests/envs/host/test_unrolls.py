"""Whatever an environment may not give is refused, by name; the rest comes through."""

import re
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_par.envs.host.admission import BadRowError
from jaxrl_par.envs.host.unrolls import UnrollBuffer
from jaxrl_par.types import Box, Discrete, TimeStep

B, T = 3, 4


class Obs(NamedTuple):
    """An observation with every kind of leaf."""

    position: np.ndarray
    image: np.ndarray
    goal: np.ndarray
    free: np.ndarray
    open: np.ndarray


SPECS = Obs(
    Box((2,), low=np.array([-1.0, 0.0], np.float32), high=1.0),
    Box((2, 2), np.dtype(np.uint8), 0.0, 255.0),
    Discrete(5),
    Box(()),
    Box((), np.dtype(np.bool_), 0.0, 1.0),
)
LEVEL = Box((), np.dtype(np.int16), -3.0, 7.0)


def step(first=False, last=False, **obs) -> TimeStep:
    """B environments that are all well."""
    good = Obs(
        np.full((B, 2), 0.5, np.float32),
        np.full((B, 2, 2), 255, np.uint8),
        np.full(B, 4, np.int32),
        np.full(B, -1e30, np.float32),
        np.ones(B, np.bool_),
    )
    return TimeStep(good._replace(**obs), np.full(B, first), np.full(B, last))


def filled(specs=SPECS, steps=None, last=()) -> UnrollBuffer:
    """An unroll whose episodes end in the rows `last`, of all environments."""
    rows = UnrollBuffer(specs, Discrete(2), T, B)
    for t in range(T + 1):
        shown = step() if steps is None else steps[t]
        flags = {"first": np.full(B, t - 1 in last), "last": np.full(B, t in last)}
        rows.write_step(t, shown._replace(**flags))
    for t in range(T):
        paid = np.full(B, float(t not in last), np.float32)
        rows.write_reward(t, paid, paid)
    rows.action[:] = 1
    return rows


def changed(leaf: str, index, value) -> UnrollBuffer:
    """Well but for one element of the buffers."""
    rows = filled()
    steps = rows.steps()
    buffers = {
        **steps.obs._asdict(),
        "first": steps.first,
        "last": steps.last,
        "reward": rows.reward,
        "discount": rows.discount,
    }
    buffers[leaf][index] = value
    return rows


# What is good --------------------------------------------------------------------


def test_good_rows_come_through_as_they_were_given():
    obs = [np.full(B, float(t), np.float32) for t in range(T + 1)]
    rows = filled(steps=[step(free=x) for x in obs], last=(1, 4))
    rows.check()
    trajectory = rows.trajectory({"log_prob": 1}, "memory")
    np.testing.assert_array_equal(trajectory.steps.obs.free, obs)
    assert trajectory.steps.obs.image.dtype == np.uint8
    np.testing.assert_array_equal(trajectory.steps.last[:, 0], [0, 1, 0, 0, 1])
    np.testing.assert_array_equal(trajectory.steps.first[:, 0], [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(trajectory.reward[:, 0], [1, 0, 1, 1])
    np.testing.assert_array_equal(trajectory.discount[:, 0], [1, 0, 1, 1])
    assert (trajectory.action == 1).all() and trajectory.action.shape == (T, B)
    assert trajectory.extras == {"log_prob": 1} and trajectory.carry == "memory"


def test_rows_are_copies_of_what_an_environment_may_overwrite():
    given_ = np.zeros(B, np.float32)
    rows = filled(steps=[step(free=given_)] * (T + 1))
    given_[:] = 7
    assert not rows.steps().obs.free.any()
    shown = rows.row(2)
    np.testing.assert_array_equal(shown.obs.position, rows.steps().obs.position[2])
    assert shown.first.shape == shown.last.shape == (B,)


# Shapes and dtypes: at once ------------------------------------------------------


@pytest.mark.parametrize(
    ("leaf", "bad", "why"),
    [
        ("position", np.zeros((B, 3), np.float32), r"shape \(3, 3\), not \(3, 2\)"),
        ("position", np.zeros((1, 2), np.float32), r"shape \(1, 2\), not \(3, 2\)"),
        ("position", np.zeros((B, 2), np.float64), "dtype float64, not float32"),
        ("image", np.zeros((B, 2, 2), np.int8), "dtype int8, not uint8"),
        ("goal", np.zeros(B, np.int64), "dtype int64, not int32"),
        ("free", 0.0, "is a float, not a numpy array"),
    ],
)
def test_a_wrong_shape_or_dtype_of_an_observation_is_refused_at_once(leaf, bad, why):
    rows = UnrollBuffer(SPECS, Discrete(2), T, B)
    with pytest.raises(BadRowError, match=rf"observation\.{leaf} .*{why}"):
        rows.write_step(1, step(**{leaf: bad}))


@pytest.mark.parametrize("name", ["first", "last"])
@pytest.mark.parametrize("bad", [np.zeros(B), np.zeros(B + 1, np.bool_), False])
def test_flags_of_another_kind_are_refused_at_once(name, bad):
    with pytest.raises(BadRowError, match=f"^{name} "):
        filled().write_step(0, step()._replace(**{name: bad}))


@pytest.mark.parametrize("name", ["reward", "discount"])
@pytest.mark.parametrize(
    "bad", [np.zeros(B), np.zeros((B, 1), np.float32), np.zeros(B, np.int32)]
)
def test_payments_of_another_kind_are_refused_at_once(name, bad):
    paid = dict.fromkeys(("reward", "discount"), np.zeros(B, np.float32))
    with pytest.raises(BadRowError, match=f"^{name} "):
        filled().write_reward(0, **paid | {name: bad})


def test_another_structure_is_refused_at_once():
    with pytest.raises(BadRowError, match=r"observation is .*, its spec"):
        filled().write_step(
            0, step()._replace(obs={"position": np.zeros(B, np.float32)})
        )


# Values: at the end of the unroll ------------------------------------------------


@pytest.mark.parametrize(
    ("leaf", "index", "value", "what"),
    [
        ("position", (4, 2, 1), -0.5, "observation.position of environment 2 in row 4, "
         "element [1] is outside"),
        ("position", (0, 0, 0), 1.5, "observation.position of environment 0 in row 0, "
         "element [0] is outside"),
        ("position", (1, 1, 0), np.nan, "observation.position of environment 1 in row "
         "1, element [0] is not finite: nan"),
        ("free", (2, 0), np.inf, "observation.free of environment 0 in row 2 is not"),
        ("free", (2, 0), -np.inf, "observation.free of environment 0 in row 2 is not"),
        ("goal", (3, 2), 5, "observation.goal of environment 2 in row 3 is not in 0 .. "
         "4: 5"),
        ("goal", (3, 2), -1, "observation.goal of environment 2 in row 3 is not in 0"),
        ("reward", (3, 1), np.nan, "reward of environment 1 in row 3 is not finite"),
        ("reward", (0, 1), -np.inf, "reward of environment 1 in row 0 is not finite"),
        ("discount", (0, 2), np.nan, "discount of environment 2 in row 0 is not fin"),
        ("discount", (1, 2), 1.5, "discount of environment 2 in row 1 is not in [0, 1]"
         ": 1.5"),
        ("discount", (1, 2), -0.5, "discount of environment 2 in row 1 is not in [0"),
        ("first", (2, 1), True, "first of environment 1 in row 1 comes in the middle"),
        ("last", (3, 0), True, "first of environment 0 in row 3 must follow the end"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_with_field_environment_and_row(
    leaf, index, value, what
):
    with pytest.raises(BadRowError, match=f"^{re.escape(what)}") as error:
        changed(leaf, index, value).check()
    # Flags are wrong only compared with the row before: it is named.
    assert error.value.row == index[0] - (leaf == "first")


@pytest.mark.parametrize("name", ["reward", "discount"])
def test_nothing_is_paid_after_the_end_of_an_episode(name):
    rows = filled(last=(2,))
    getattr(rows, name)[2, 1] = 0.5
    what = f"{name} of environment 1 in row 2 must be 0 after the end of an episode"
    with pytest.raises(BadRowError, match=what):
        rows.check()


def test_bounds_are_checked_only_if_asked_but_infinity_always():
    changed("position", (4, 2, 1), -0.5).check(check_bounds=False)
    with pytest.raises(BadRowError, match=r"position .* is not finite"):
        changed("position", (4, 2, 1), np.nan).check(check_bounds=False)


@pytest.mark.parametrize(("value", "fine"), [(-4, 0), (-3, 1), (7, 1), (8, 0)])
def test_bounds_of_integers_count_where_they_exclude_something(value, fine):
    obs = np.full(B, value, np.int16)
    rows = filled(LEVEL, [step()._replace(obs=obs)] * (T + 1))
    if fine:
        rows.check()
    else:
        with pytest.raises(
            BadRowError, match=r"observation of .* is outside \[-3.0, 7.0\]"
        ):
            rows.check()


@pytest.mark.parametrize(("value", "fine"), [(-1, 0), (0, 1), (4, 1), (5, 0)])
def test_a_choice_is_below_the_number_of_choices(value, fine):
    obs = np.full(B, value, np.int32)
    rows = filled(Discrete(5), [step()._replace(obs=obs)] * (T + 1))
    if fine:
        rows.check()
    else:
        with pytest.raises(BadRowError, match=r"observation of .* is not in 0 \.\. 4"):
            rows.check()


floats = st.floats(width=32)
index = st.tuples(st.integers(0, T - 1), st.integers(0, B - 1))


@given(
    where=index, what=st.sampled_from(["reward", "discount", "position"]), value=floats
)
def test_a_value_is_refused_exactly_if_it_is_not_allowed(where, what, value):
    if what == "position":
        allowed = -1 <= value <= 1
        where = (*where, 0)
    else:
        allowed = np.isfinite(value) and (what == "reward" or 0 <= value <= 1)
    rows = changed(what, where, value)
    if allowed:
        rows.check()
        return
    with pytest.raises(BadRowError, match=f"{what} of environment {where[1]} in row"):
        rows.check()


@given(ends=st.lists(st.booleans(), min_size=T + 1, max_size=T + 1))
def test_any_sequence_of_episodes_that_is_a_stream_is_good(ends):
    filled(last=tuple(np.flatnonzero(ends))).check()
