"""`jaxrl-par compare`."""

import json

import pytest

from jaxrl_par.cli.compare import compare_command
from jaxrl_par.training import TrainingError


def leave(path, seed, **metrics):
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"env_name": "a", "seed": seed}))
    rows = [{"updates": i, "env_steps": i, **metrics} for i in (1, 2)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))


def test_a_table_is_printed_and_a_picture_written(tmp_path, capsys):
    for seed in (0, 1):
        leave(tmp_path / f"run-{seed}", seed, loss=seed)
    out = tmp_path / "a.png"
    compare_command([str(tmp_path), "--metric", "loss", "--out", str(out)])
    told = capsys.readouterr().out
    assert "0.5 [0, 1]" in told and f"Curves: {out}" in told
    assert out.exists()


def test_what_cannot_be_compared_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="is no folder"):
        compare_command([str(tmp_path / "x")])


def test_a_name_that_is_of_no_picture_is_refused_before_all_else(tmp_path, capsys):
    leave(tmp_path / "run", 0, episode_return=1)
    with pytest.raises(SystemExit) as stop:
        compare_command([str(tmp_path), "--out", "x.xyz"])
    assert stop.value.code == 2
    told = capsys.readouterr()
    assert "out must end in .html, .jpg, .pdf, .png or .svg, got x.xyz" in told.err
    assert not told.out
