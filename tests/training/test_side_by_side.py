"""Runs side by side."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from jaxrl_par.errors import RefusedError
from jaxrl_par.training.failures import DiskFullError, TrainingError
from jaxrl_par.training.intervals import interval
from jaxrl_par.training.side_by_side import compare


def leave(path, *, seed=0, returns=(0.0, 1.0, 2.0), finished=True, **config):
    """The folder of a run, 100 environment steps and a second a row."""
    path.mkdir(parents=True)
    kept = {"runs_dir": str(path.parent), "log_interval": 20, "name": path.name}
    content = {"env_name": "CartPole-v1", "seed": seed, "training": kept} | config
    (path / "config.json").write_text(json.dumps(content))
    rows = [
        {"updates": i, "env_steps": 100 * i, "seconds": i, "episode_return": x}
        for i, x in enumerate(returns, start=1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))
    if finished:
        evaluation = {"sampled_return": 10.0 * seed}
        summary = {"state_sha256": str(path), "evaluation": evaluation}
        (path / "summary.json").write_text(json.dumps(summary))
    return path


def test_runs_that_differ_in_the_seed_and_how_they_are_kept_are_one_group(tmp_path):
    rates = {"optimizer": {"learning_rate": 0.1}}, {"optimizer": {"learning_rate": 0.2}}
    for seed in range(5):
        config = rates[0] | {"provenance": {"command": seed}}
        leave(tmp_path / f"a-{seed}", seed=seed, returns=[seed] * 3, **config)
    leave(tmp_path / "b", returns=[7.0] * 3, **rates[1])
    found = compare([tmp_path])
    first, second = found.groups
    assert (first.num_seeds, second.num_seeds, found.notes) == (5, 1, ())
    assert first.end == interval(np.arange(5.0)[:, None])
    assert (second.end.mean, second.end.low) == (7, None)
    assert first.evaluation["sampled_return"].mean == 20
    assert found.differences == {"optimizer.learning_rate": (0.1, 0.2)}
    lines = found.text().splitlines()
    titles = "environment", "seeds", "episode return", "sampled return", "steps/s"
    assert all(title in lines[0] for title in titles)
    assert lines[1].split() == [
        *("a-0", "CartPole-v1", "5", "2", "[0.3333,", "3.667]", "20", "[3.333,"),
        "36.67]",
        *("300", "100", "0.00"),
    ]
    assert lines[-1].split() == ["optimizer.learning_rate", "0.1", "0.2"]


def test_other_experiments_with_the_same_settings_are_another_group(tmp_path):
    for name in ("ppo", "own.py"):
        leave(tmp_path / name, provenance={"experiment": name})
    assert compare([tmp_path]).differences == {"experiment": ("own.py", "ppo")}


def test_curves_lie_on_a_grid_where_all_seeds_are(tmp_path):
    leave(tmp_path / "long", seed=0, returns=[0.0, 10.0, 20.0, 30.0])
    leave(tmp_path / "late", seed=1, returns=[None, 10.0, 20.0], finished=False)
    found = compare([tmp_path / "long", tmp_path / "late"])
    steps, values = found.groups[0].curve
    assert (steps[0], steps[-1]) == (200, 300)
    np.testing.assert_allclose(values.mean, steps / 10 - 10)
    assert found.notes == (
        f"{tmp_path / 'late'} is not finished",
        f"long: its curve ends at 300 steps, as {tmp_path / 'late'}",
    )
    told = found.text().replace(str(tmp_path), "")
    assert "200 " not in told  # of an evaluation that one of them lacks


def test_seeds_that_share_no_step_have_an_end_and_no_curve(tmp_path):
    leave(tmp_path / "a", seed=0, returns=[1.0])
    leave(tmp_path / "b", seed=1, returns=[None, 3.0])
    found = compare([tmp_path])
    assert found.groups[0].end.mean == 2 and not len(found.groups[0].curve[0])
    assert "a has no curve: there is no step at which all its seeds are" in found.notes
    found.draw(tmp_path / "empty.png")


def test_members_of_a_population_are_seeds_at_their_share_of_the_steps(tmp_path):
    returns = [[1.0, None, 5.0, None], [2.0, None, 6.0, 9.0]]
    leave(tmp_path / "a", returns=returns)
    found = compare([tmp_path / "a"])
    (group,) = found.groups
    assert group.num_seeds == 3
    assert group.end.mean == np.mean([2, 6, 9])
    np.testing.assert_array_equal(group.runs[0].steps, [25, 50])
    assert group.runs[0].env_steps == 200
    assert found.notes == (
        f"{tmp_path / 'a'}: 1 of 4 members have no 'episode_return'",
        "a: 3 members of populations count as a seed each",
    )


def test_members_that_differ_in_more_than_their_seeds_are_groups(tmp_path):
    for name, seeds in (("a", [0, 1]), ("b", [2, 3])):
        returns = [[1.0, 2.0, None, 4.0], [5.0, 6.0, None, 8.0]]
        path = leave(tmp_path / name, returns=returns)
        own = {"rate": np.float32([0.1, 0.2, 0.2, 0.1]).tolist(), "cost": [3] * 4}
        members = own | {"seed": [*seeds, *seeds]}
        (path / "members.json").write_text(json.dumps(members))
    found = compare([tmp_path])
    first, second = found.groups
    assert (first.name, second.name) == ("a: rate = 0.1", "a: rate = 0.2")
    assert [len(run.values) for run in first.runs + second.runs] == [2, 2, 1, 1]
    assert (first.end.mean, second.end.mean) == (np.mean([5, 5, 8, 8]), 6)
    assert [run.env_steps for run in first.runs] == [100, 100]
    np.testing.assert_array_equal(first.runs[0].steps, [25, 50])
    assert found.differences == {"members.rate": (0.1, 0.2)}
    told = found.text().splitlines()[0].replace(str(tmp_path), "")
    assert "10" not in told  # of all members together


@pytest.mark.parametrize("rates", ["[0.1]", "0.1", '["x", "y"]', "[1, null]"])
def test_hyperparameters_that_are_none_are_told(rates, tmp_path):
    path = leave(tmp_path / "a", returns=[[1.0, 2.0]])
    (path / "members.json").write_text(f'{{"rate": {rates}}}')
    with pytest.raises(TrainingError, match="rate must be a list of 2 numbers"):
        compare([path])


def test_copies_are_left_out_and_equal_seeds_are_told(tmp_path):
    leave(tmp_path / "a")
    leave(tmp_path / "b")
    leave(tmp_path / "c")
    (tmp_path / "c/summary.json").write_text((tmp_path / "a/summary.json").read_text())
    found = compare([tmp_path, tmp_path / "a", tmp_path])
    assert found.groups[0].num_seeds == 2
    assert found.notes == (
        f"Left out: {tmp_path / 'c'} ended in the same bits as {tmp_path / 'a'}",
        "a: 2 runs have the seed 0, and count as many",
    )


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path):
    good = leave(tmp_path / "good", seed=1)
    wrong = {
        "file": ("is no folder", lambda x: x.touch()),
        "missing": ("is no folder", lambda x: None),
        "none": ("is no folder of a run: it has no config.json", lambda x: x.mkdir()),
    }
    damaged = {
        "config": ("config.json", b'{"seed', "line 1: not JSON"),
        "binary": ("config.json", b"\xff\x00", "a byte is not UTF-8"),
        "list": ("config.json", b"[]", "must be an object"),
        "deep": ("config.json", b"[" * 100_000, "nested too deeply"),
        "no_rows": ("metrics.jsonl", b"", "has no metrics yet"),
        "strange": (
            "metrics.jsonl",
            b'{"updates": 1}\n[]\n"x"\n',
            "has no metrics yet",
        ),
        "bytes": ("metrics.jsonl", b"\xff\x00\n", "has no metrics yet"),
        "infinite": ("metrics.jsonl", b'{"updates": Infinity}\n', "no metrics yet"),
        "other": (
            "metrics.jsonl",
            b'{"updates": 1, "env_steps": 1, "episode_retrun": 2}\n',
            "has no 'episode_return'; did you mean 'episode_retrun'? It has:"
            " env_steps, episode_retrun, updates",
        ),
        "never": (
            "metrics.jsonl",
            b'{"updates": 1, "env_steps": 1, "episode_return": null}\n',
            "has no finite 'episode_return'",
        ),
    }
    for name, (_, make) in wrong.items():
        make(tmp_path / name)
    for name, (file, content, _) in damaged.items():
        (leave(tmp_path / name) / file).write_bytes(content)
    names = [*wrong, *damaged]
    found = compare([good, *(tmp_path / name for name in names)])
    (group,) = found.groups
    assert [run.path for run in group.runs] == [good]
    expected = [x[0] for x in wrong.values()] + [x[2] for x in damaged.values()]
    assert len(found.notes) == len(names)
    for name, told, note in zip(names, expected, found.notes, strict=True):
        assert note.startswith(f"Left out: {tmp_path / name}") and told in note
        assert "\n" not in note


def test_rows_and_summaries_that_are_damaged_cost_themselves_alone(tmp_path):
    path = leave(tmp_path / "a", returns=[1.0, 2.0, 3.0])
    extra = {"updates": 4, "env_steps": 400, "seconds": 4, "episode_return": [1, 2]}
    bad = [json.dumps(extra | {"episode_return": x}) for x in (10**400, True, "x")]
    lines = path.joinpath("metrics.jsonl").read_text().splitlines()
    lines = [lines[0], "{", json.dumps(extra), lines[2], *bad, lines[1], '{"updates"']
    (path / "metrics.jsonl").write_text("\n".join(lines))
    (path / "summary.json").write_text("{")
    found = compare([path])
    (group,) = found.groups
    np.testing.assert_array_equal(group.runs[0].values, [[1, 2, 3]])
    np.testing.assert_array_equal(group.runs[0].steps, [100, 200, 300])
    told = [note for note in found.notes if "not a row" in note]
    assert [note.partition("line ")[2][:1] for note in told] == ["2", "6", "7"]
    assert any("1 rows have another number of members" in x for x in found.notes)
    assert any("summary.json, line 1: not JSON" in x for x in found.notes)


def test_nothing_to_compare_is_an_error_that_lists_why(tmp_path):
    with pytest.raises(TrainingError, match="nothing to compare: no folder was given"):
        compare([])
    with pytest.raises(
        TrainingError, match=r"nothing to compare:\n  Left out: .*/x is"
    ):
        compare([tmp_path / "x"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_told(tmp_path):
    path = leave(tmp_path / "a")
    (path / "config.json").chmod(0)
    with pytest.raises(TrainingError, match=r"config\.json cannot be read: .*denied"):
        compare([path])


def test_the_picture_has_a_panel_for_each_environment_and_a_band(tmp_path):
    for seed in range(4):
        leave(tmp_path / f"a-{seed}", seed=seed, returns=[seed, 2 * seed, 9.0 * seed])
    leave(tmp_path / "b", env_name="Pendulum-v1")
    both = compare([tmp_path])
    both.draw(tmp_path / "both.png")
    compare([tmp_path / f"a-{seed}" for seed in range(4)]).draw(tmp_path / "one.png")
    two, one = (
        Image.open(tmp_path / f"{x}.png").convert("RGB") for x in ("both", "one")
    )
    assert two.size[0] == 2 * one.size[0]
    pixels = np.asarray(one, np.int64)
    light = (pixels[..., 2] > pixels[..., 0] + 20) & (pixels[..., 0] > 150)
    assert light.mean() > 0.05
    assert both.notes == (
        "These are of several environments, a panel each: CartPole-v1, Pendulum-v1",
    )


def test_one_folder_is_one_and_not_its_letters(tmp_path):
    path = leave(tmp_path / "a")
    told = compare([path]).text()
    assert compare(str(path)).text() == compare(path).text() == told


@pytest.mark.parametrize("name", ["curves", "x.wav", "x.raw"])
def test_a_picture_without_its_end_is_refused_and_not_renamed(tmp_path, name):
    told = rf"{name} must end in \.jpg, \.pdf, \.png or \.svg"
    with pytest.raises(RefusedError, match=told):
        compare([leave(tmp_path / "a")]).draw(tmp_path / name)
    assert [x.name for x in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("name", "begins"),
    [("x.PNG", b"\x89PNG"), ("x.jpg", b"\xff\xd8"), ("x.pdf", b"%PDF")],
)
def test_a_picture_is_what_its_name_ends_in(tmp_path, name, begins):
    compare([leave(tmp_path / "a")]).draw(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_an_old_picture_stays_where_a_new_one_has_no_room(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"no room to write .*x\.png"):
        compare([leave(tmp_path / "a")]).draw(tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_picture_that_cannot_be_written_is_a_sentence(tmp_path):
    found = compare([leave(tmp_path / "a")])
    with pytest.raises(TrainingError, match=r"x.* cannot be written: "):
        found.draw(tmp_path / "none" / "x.png")
