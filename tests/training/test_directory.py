"""The folder of a run: taken by one, and left to nobody's harm."""

import errno
import json
import os
import threading
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_training import Args, run_toy, toy

from jaxrl_par import random
from jaxrl_par.errors import RefusedError
from jaxrl_par.training import TrainingConfig, train
from jaxrl_par.training.directory import RunFolderError, open_directory
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import FileError, HeldError, Hold, read_object


def settings(tmp_path, **changes) -> TrainingConfig:
    base = TrainingConfig(
        runs_dir=str(tmp_path / "runs"), log_interval=5, tensorboard=False
    )
    return replace(base, **changes)


def opened_together(settings: TrainingConfig, count: int = 8):
    """What as many threads got, that began at the same time."""
    barrier, results = threading.Barrier(count), []

    def open_one():
        barrier.wait()
        try:
            results.append(open_directory(None, settings, "run").path.name)
        except TrainingError as error:
            results.append(error)

    threads = [threading.Thread(target=open_one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_runs_that_start_together_take_the_next_numbers(tmp_path):
    found = opened_together(settings(tmp_path))
    assert sorted(found) == sorted(["run", *(f"run-{i}" for i in range(2, 9))])


def test_a_name_is_taken_once(tmp_path):
    for i in range(5):
        found = opened_together(settings(tmp_path, name=f"mine{i}"))
        assert sum(x == f"mine{i}" for x in found) == 1
        errors = [x for x in found if x != f"mine{i}"]
        assert all(isinstance(x, RunFolderError | HeldError) for x in errors)


def test_a_run_that_still_runs_is_not_resumed(tmp_path):
    args = Args(training=settings(tmp_path, name="a"))
    with open_directory(args, args.training, "toy") as directory:
        (directory.checkpoints / "1").mkdir(parents=True)
        for changes in ({"resume": True}, {"auto_resume": True}, {}):
            again = replace(args, training=replace(args.training, **changes))
            with pytest.raises(HeldError, match="a is being written by process"):
                run_toy(again)
        # Who resumes without a name means the newest, which is another one here.
        assert directory.config.exists()
    with pytest.raises(RunFolderError, match=r"exists\. Continue"):
        run_toy(args)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "a/../../escaped", "/tmp/escaped", "a\\b", "a\0b",
     "a\n", "a ", "a.", "a" * 300, "ä" * 101, "a\x1b[2J", "\udcff"],
)  # fmt: skip
def test_a_name_that_is_none_is_refused_before_anything_is_made(tmp_path, name):
    args = Args(training=settings(tmp_path, name=name))
    (problem,) = args.training.problems()
    assert problem.startswith("name must ")
    with pytest.raises(ValueError, match=r"^name must "):
        run_toy(args)
    if name:
        with pytest.raises(ValueError, match=r"^default_name must "):
            open_directory(None, settings(tmp_path), name)
    assert not (tmp_path / "runs").exists()


def test_a_place_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for runs_dir in ("", " ", "a\0b"):
        with pytest.raises(ValueError, match="runs_dir must be"):
            run_toy(Args(training=settings(tmp_path, runs_dir=runs_dir)))
    for runs_dir in ("file", "file/deep", "a" * 300, "/proc/nothing"):
        place = str(tmp_path / runs_dir)
        with pytest.raises(FileError, match=rf"^{place}.* cannot be written: "):
            run_toy(Args(training=settings(tmp_path, runs_dir=place)))
    with pytest.raises(FileError, match="file exists"):
        run_toy(Args(training=settings(tmp_path, runs_dir=str(tmp_path), name="file")))
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


def test_a_folder_of_somebody_else_is_not_resumed(tmp_path):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("mine")
    for changes in ({"resume": True}, {"auto_resume": True}):
        with pytest.raises(RunFolderError, match="not the folder of a run"):
            run_toy(Args(training=settings(tmp_path, name="a", **changes)))
    assert {x.name for x in folder.iterdir()} <= {"thesis.tex", "lock"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"line 1: must be an object, got \[\]"),
        ("null", "line 1: must be an object, got null"),
        ('{\n"training": null}', "line 2: training must be an object, got null"),
        ('{"training": [1]}', r"line 1: training must be an object, got \[1\]"),
        ("{", "line 1: not JSON"),
        ('{"training": {"log_interval": NaN}}', "NaN is no JSON"),
        ("{}", "another layout"),
    ],
)
def test_a_config_that_was_changed_by_hand_is_a_sentence(tmp_path, content, message):
    args = Args(training=settings(tmp_path, name="a", resume=True))
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(content)
    with pytest.raises(TrainingError, match=message) as error:
        run_toy(args)
    assert str(folder / "config.json") in str(error.value)
    assert (folder / "config.json").read_text() == content


def test_what_the_config_tells_about_the_run_does_not_keep_it_from_going_on(tmp_path):
    args = Args(training=settings(tmp_path, name="a"))
    directory = open_directory(args, args.training, "toy")
    config = json.loads(directory.config.read_text())
    directory.config.write_text(json.dumps(config | {"provenance": {"commit": "abc"}}))
    open_directory(args, replace(args.training, resume=True), "toy")


def test_a_run_begins_and_goes_on_with_the_same_command(tmp_path):
    auto = settings(tmp_path, auto_resume=True)
    names = [open_directory(None, auto, "run", ()).path.name for _ in range(3)]
    assert names == ["run"] * 3
    named = replace(auto, name="mine")
    assert open_directory(None, named, "run").path.name == "mine"
    assert open_directory(None, named, "run").path.name == "mine"
    open_directory(None, replace(auto, auto_resume=False), "run")
    assert open_directory(None, auto, "run").path.name == "run-2"
    assert TrainingConfig(resume=True, auto_resume=True).problems() == [
        "resume and auto_resume: choose one of them"
    ]


def test_args_may_be_of_any_kind(tmp_path):
    """And hold the settings or not: those that are given are those that are kept."""
    base = settings(tmp_path)
    part = base.__dict__ | {"name": "mine", "info_metrics": []}
    mine = replace(base, name="mine")
    content = {"rate": np.float32(0.5), "path": Path("data"), "widths": (3, 4)}
    written = {"rate": 0.5, "path": "data", "widths": [3, 4]}
    for args, expected in (
        (None, {"training": part}),
        (content, written | {"training": part}),
        (Namespace(**content), written | {"training": part}),
        (content | {"own": base}, written | {"own": part}),
        (Args(training=base), None),
    ):
        with open_directory(args, mine, "run") as directory:
            config = json.loads(directory.config.read_text())
            assert config["own" if "own" in config else "training"] == part
            assert expected is None or config.keys() - {"provenance"} == expected.keys()
            assert all(config[name] == x for name, x in (expected or {}).items())
        assert not directory.path.exists()  # nothing was saved


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"args": 42}, RefusedError, "a config is a dataclass, a mapping"),
        ({"args": {"f": print}}, RefusedError, "config.f cannot be written as JSON"),
        ({"args": {"x": {"y": float("inf")}}}, RefusedError, "x.y must be finite"),
        ({"num_updates": 0}, ValueError, "a whole number of 1"),
        ({"num_updates": 10**30}, ValueError, "a whole number"),
        (
            {"program": toy()._replace(init=lambda key: 1 / 0)},
            ZeroDivisionError,
            "zero",
        ),
    ],
)
def test_a_call_that_is_refused_leaves_no_folder(tmp_path, changes, error, message):
    given = {"program": toy(), "args": None, "num_updates": 5} | changes
    with pytest.raises(error, match=message):
        train(
            given["program"],
            given["args"],
            settings(tmp_path),
            key=random.key(0),
            num_updates=given["num_updates"],
        )
    assert not list((tmp_path / "runs").glob("*"))


def test_a_lock_alone_is_no_run(tmp_path):
    """Of a run that was killed before it began."""
    (tmp_path / "runs" / "a").mkdir(parents=True)
    Hold(tmp_path / "runs" / "a").release()
    for changes in ({}, {"resume": True}):
        args = Args(training=settings(tmp_path, name="a", **changes))
        with open_directory(args, args.training, "toy") as directory:
            assert directory.config.exists()
        directory.path.mkdir(exist_ok=True)


def test_a_run_that_was_killed_before_its_config_was_written_goes_on(tmp_path):
    folder = tmp_path / "runs" / "toy"
    folder.mkdir(parents=True)
    for name in ("lock", "config.json.new"):
        (folder / name).write_text("{")
    chosen = settings(tmp_path, name="toy", auto_resume=True)
    directory = open_directory(None, chosen, "run")
    assert read_object(directory.config)["training"]["name"] == "toy"


def test_a_place_that_is_gone_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileError, match="runs cannot be written: no such file"):
        open_directory(None, settings(tmp_path, runs_dir="runs"), "run")


def test_a_place_without_permission_is_a_sentence(tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    before = os.geteuid()
    if before:
        runs.chmod(0)
    else:  # who may do everything
        os.seteuid(2**16 - 2)
    try:
        with pytest.raises(FileError, match="cannot be written: permission denied"):
            open_directory(None, settings(tmp_path), "run")
    finally:
        os.seteuid(before)
        runs.chmod(0o700)


def test_a_file_system_for_reading_alone_is_a_sentence(tmp_path, disk):
    disk.read_only()
    with pytest.raises(FileError, match="cannot be written: read-only file system"):
        open_directory(None, settings(tmp_path, runs_dir=str(disk.path)), "run")


def test_a_folder_that_cannot_be_removed_hides_no_error(tmp_path, monkeypatch):
    """As where a file system came to be for reading alone."""

    def refused(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    directory = open_directory(None, settings(tmp_path), "run")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError), directory:
        patch.setattr(Path, "unlink", refused)
        raise ZeroDivisionError
    Hold(directory.path).release()
    assert directory.config.exists()


def test_what_another_leaves_in_a_folder_that_is_removed_stays(tmp_path, monkeypatch):
    """He took the lock's place at the last moment."""
    remove = Hold.remove

    def and_somebody_comes(hold):
        remove(hold)
        (directory.path / "lock").write_text("another's")

    directory = open_directory(None, settings(tmp_path), "run")
    monkeypatch.setattr(Hold, "remove", and_somebody_comes)
    with directory:
        pass
    assert (directory.path / "lock").read_text() == "another's"
