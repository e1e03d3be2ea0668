"""Metrics: exact means, and a file without duplicates, gaps or NaN."""

import errno
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaxrl_par.errors import RefusedError
from jaxrl_par.training.rows import (
    JsonLines,
    TensorBoard,
    joined,
    read_rows,
    results,
    scalar,
    summarize,
    total,
)
from jaxrl_par.types import Count, Mean


def row(updates: int, value: float | None = 1.0) -> dict:
    return {"updates": updates, "env_steps": 10 * updates, "episode_return": value}


def test_means_are_over_the_chunk_and_weighted_by_counts():
    metrics = {
        "loss": jnp.array([1.0, 2.0, 6.0]),
        "return": Mean(jnp.array([10.0, 0.0, 2.0]), jnp.array([1.0, 0.0, 3.0])),
        "nothing": Mean(jnp.zeros(3), jnp.zeros(3)),
        "bad": jnp.array([1.0, jnp.nan, 2.0]),
    }
    assert summarize(metrics) == {
        "loss": 3.0,
        "return": 3.0,
        "nothing": None,
        "bad": None,
    }


def test_a_population_keeps_its_members():
    metrics = {
        "loss": jnp.array([[1.0, 2.0], [3.0, jnp.inf]]),
        "return": Mean(
            jnp.array([[4.0, 0.0], [2.0, 0.0]]), jnp.array([[1.0, 0], [1, 0]])
        ),
    }
    assert summarize(metrics) == {"loss": [2.0, None], "return": [3.0, None]}
    assert scalar([2.0, None, 4.0]) == 3.0
    assert scalar([None]) is None


@pytest.mark.parametrize(
    "value", [np.float32(2), jnp.bfloat16(2), np.int64(2), np.array(2.0), 2, 2.0]
)
def test_an_evaluation_gives_numbers_of_any_kind(value):
    row = results({"x": value, "members": [value, jnp.nan], "flag": np.bool_(True)})
    assert row == {"x": 2.0, "members": [2.0, None], "flag": 1.0}
    assert json.loads(json.dumps(row)) == row
    assert type(row["flag"]) is float  # a row with `true` would not be read again


@pytest.mark.parametrize(
    "value", [None, "2", 1j, 10**400, [[2.0]], [2.0, [1.0]], {"y": 2.0}]
)
def test_what_is_no_number_is_refused_by_its_name(value):
    with pytest.raises(RefusedError, match=r"numbers by name, got .* for 'x'"):
        results({"x": value})


@pytest.mark.parametrize("returned", [None, 2.0, ["x"], {3: 2.0}])
def test_results_without_names_are_refused(returned):
    with pytest.raises(RefusedError, match="must return numbers by name, got"):
        results(returned)


def test_metrics_that_are_no_real_numbers_are_refused():
    for value in (jnp.ones(2, jnp.complex64), jax.random.split(jax.random.key(0))):
        with pytest.raises(RefusedError, match="metric 'x' must be real numbers"):
            summarize({"x": value})


def test_nothing_in_a_row_is_replaced():
    assert joined(row(1), {"loss": 2.0}) == row(1) | {"loss": 2.0}
    with pytest.raises(RefusedError, match="has its own env_steps: call that of"):
        joined(row(1), {"env_steps": 0.5})


def test_counters_do_not_wrap():
    count = Count(jnp.array([4000, 1]), jnp.array([5, 6]))
    assert total(count) == 4_001_000_011


def test_lines_are_there_at_once_and_hold_null_for_nan(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(path)
    lines.write(row(5, None))
    assert (
        path.read_text() == '{"updates": 5, "env_steps": 50, "episode_return": null}\n'
    )
    with pytest.raises(ValueError):
        lines.write(row(10, float("nan")))
    lines.close()


def test_resuming_drops_later_rows_and_the_torn_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    text = "".join(json.dumps(row(updates)) + "\n" for updates in (5, 10, 15))
    path.write_text(text + '{"updates": 20, "env_')
    lines = JsonLines(path, updates=10)
    lines.write(row(15, 2.0))
    lines.close()
    assert read_rows(path) == [row(5), row(10), row(15, 2.0)] == lines.rows


def test_rows_that_cannot_be_read_are_put_aside(tmp_path, monkeypatch, capsys):
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(path)
    lines.write(row(5))
    lines.close()
    before = path.read_bytes()

    def fails(path):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", fails)
        lines = JsonLines(path, updates=5)
        lines.write(row(10))
        lines.close()
    assert "cannot be read: input/output error" in capsys.readouterr().err
    assert (tmp_path / "unread-metrics.jsonl").read_bytes() == before
    assert [x["updates"] for x in read_rows(path)] == [10]


def test_a_line_that_is_no_row_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(row(5)) + "\nnonsense\n" + json.dumps(row(10)) + "\n")
    with pytest.warns(UserWarning, match=r"metrics.jsonl, line 2"):
        assert read_rows(path) == [row(5), row(10)]


def test_tensorboard_has_each_step_once_after_a_resume(tmp_path):
    board = TensorBoard(tmp_path)
    for updates in (5, 10, 15):
        board.write(row(updates, 1.0))
    board.close()
    board = TensorBoard(tmp_path, purge_step=101)
    board.write(row(15, 2.0))
    board.write(row(20, None))
    board.close()
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("episode_return")
    assert [(event.step, event.value) for event in events] == [
        (50, 1.0),
        (100, 1.0),
        (150, 2.0),
    ]
