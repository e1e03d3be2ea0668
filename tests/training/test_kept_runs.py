"""What a run keeps: checkpoints in time, the best, and all of it when a disk is full,
a folder is gone, or a file was changed by hand."""

import shutil
import time
from contextlib import suppress
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from toy_training import Args, CrashError, crash_at, resumed, run_toy, settings, toy

from jaxrl_par import random
from jaxrl_par.cli import load
from jaxrl_par.training import TrainingConfig, train
from jaxrl_par.training.checkpoints import CheckpointError, Checkpoints, state_hash
from jaxrl_par.training.directory import identity
from jaxrl_par.training.engines import Compiled
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import HeldError, Hold
from jaxrl_par.training.rows import read_rows


def at_update(number: int, action):
    """An evaluation that does something else at that update."""

    def evaluate(run):
        if int(run.progress.updates) == number:
            action()
        return {"greedy_return": 1.0}

    return evaluate


@pytest.mark.slow
def test_pictures_and_logs_that_cannot_be_written_do_not_end_a_run(tmp_path, capsys):
    args = Args(training=settings(tmp_path, tensorboard=True, evaluation_interval=5))
    whole = run_toy(replace(args, training=replace(args.training, name="whole")))
    folder = tmp_path / "runs" / "toy"

    def spoil():
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        for name in ("curve.png", "summary.json", "metrics.jsonl"):
            (folder / name).unlink(missing_ok=True)
            (folder / name).mkdir()

    trained = run_toy(args, evaluate=at_update(10, spoil))
    assert state_hash(trained.run) == state_hash(whole.run)
    assert trained.summary.updates == 20 and trained.summary.seconds > 0
    told = capsys.readouterr().err
    assert told.count("warning: curve.png: ") == 1
    assert told.count("warning: the summary: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_folder_that_is_gone_is_made_again_for_what_was_learned(
    tmp_path, capsys, how
):
    args = Args(training=settings(tmp_path, evaluation_interval=5))
    folder = tmp_path / "runs" / "toy"

    before = []

    def take():
        before.append((folder / "config.json").read_bytes())
        folder.rename(tmp_path / "moved") if how == "moved" else shutil.rmtree(folder)

    def held():
        with pytest.raises(HeldError):
            Hold(folder)

    def evaluate(run):
        at_update(20, held)(run)
        return at_update(10, take)(run)

    trained = run_toy(args, evaluate=evaluate)
    assert "checkpoints was moved or removed" in capsys.readouterr().err
    assert (folder / "config.json").read_bytes() == before[0]
    assert len(read_rows(folder / "metrics.jsonl")) == 4
    again = run_toy(resumed(args))
    assert state_hash(again.run) == state_hash(trained.run)
    if how == "moved":
        (tmp_path / "moved").rename(tmp_path / "runs" / "moved")
        again = run_toy(resumed(args, name="moved"))
        assert state_hash(again.run) == state_hash(trained.run)


def test_what_cannot_be_saved_ends_the_run_in_a_sentence(tmp_path):
    """A folder of somebody else's that took its place is not touched."""
    args = Args(training=settings(tmp_path, evaluation_interval=5))
    folder = tmp_path / "runs" / "toy"

    def replaced():
        folder.rename(tmp_path / "moved")
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "thesis.tex").write_text("mine")

    with pytest.raises(CheckpointError, match="was replaced while the run went on"):
        run_toy(args, evaluate=at_update(15, replaced))
    assert [x.name for x in (folder / "checkpoints").iterdir()] == ["thesis.tex"]
    (tmp_path / "moved").rename(tmp_path / "runs" / "moved")
    assert run_toy(resumed(args, name="moved")).summary.updates == 20


@pytest.mark.slow
def test_checkpoints_are_saved_by_the_clock_and_change_nothing(tmp_path):
    whole = run_toy(Args(training=settings(tmp_path, name="whole")))
    clocked = settings(tmp_path, checkpoint_interval=0, keep_checkpoints=9)
    for name, minutes, steps in (("often", 1e-9, [0, 5, 10, 15, 20]), ("no", 0.0, [0])):
        args = Args(training=replace(clocked, name=name, checkpoint_minutes=minutes))
        with suppress(CrashError):
            run_toy(args, evaluate=crash_at(20) if minutes == 0 else None)
        folder = tmp_path / "runs" / name / "checkpoints"
        there = sorted(int(x.name) for x in folder.iterdir() if x.name.isdecimal())
        assert there == sorted({*steps, 20})
        again = run_toy(replace(args, training=replace(args.training, resume=True)))
        assert state_hash(again.run) == state_hash(whole.run)
    assert TrainingConfig().checkpoint_minutes == 5


@pytest.mark.slow
def test_the_best_by_evaluation_is_kept(tmp_path):
    best = settings(tmp_path, evaluation_interval=5, keep_best=True)
    args = Args(num_updates=30, training=best)
    scores = {5: 1.0, 10: 3.0, 15: float("nan"), 20: 2.0, 25: 3.0, 30: -1.0}

    def evaluate(run):
        updates = int(run.progress.updates)
        return {"first": scores[updates], "second": updates}

    trained = run_toy(args, evaluate=evaluate)
    same = identity(args, args.training)
    with Checkpoints(trained.directory.checkpoints, same, read_only=True) as store:
        kept = store.restore_best(trained.run)
    assert int(kept.progress.updates) == 10
    short = run_toy(Args(num_updates=10, training=settings(tmp_path, name="short")))
    assert state_hash(kept) == state_hash(short.run)
    # A run that is resumed knows how good its best was, also one that came later.
    scores |= {25: 4.0, 30: 3.5}
    shutil.rmtree(trained.directory.checkpoints / "30")
    trained.directory.summary.unlink()
    run_toy(resumed(args), evaluate=evaluate)
    with Checkpoints(trained.directory.checkpoints, same, read_only=True) as store:
        assert int(store.restore_best(trained.run).progress.updates) == 25
    assert TrainingConfig(keep_best=True).problems() == [
        "keep_best needs an evaluation_interval above 0, got 0"
    ]


@pytest.mark.slow
def test_a_finished_run_is_extended_and_becomes_the_longer_one(tmp_path):
    whole = run_toy(Args(num_updates=30, training=settings(tmp_path, name="whole")))
    args = Args(num_updates=18, training=settings(tmp_path))
    run_toy(args)
    longer = resumed(replace(args, num_updates=30))
    with pytest.raises(TrainingError, match="num_updates: 18 there, 30 now"):
        run_toy(longer)
    extended = run_toy(longer, extends=("num_updates",))
    assert state_hash(extended.run) == state_hash(whole.run)
    rows = read_rows(extended.directory.metrics)
    assert [x["updates"] for x in rows] == [5, 10, 15, 18, 20, 25, 30]
    assert load(extended.directory.config, Args).num_updates == 30
    assert "is finished" not in extended.summary.text()


@pytest.mark.slow
def test_metrics_that_were_changed_by_hand_are_told_by_line(tmp_path):
    args = Args(training=settings(tmp_path))
    directory = run_toy(args).directory
    good = directory.metrics.read_bytes().splitlines(keepends=True)
    (directory.checkpoints / "20").rename(tmp_path / "20")
    directory.metrics.write_bytes(
        good[0].replace(b"loss", b"l\xffss")
        + b'{"updates": 6}\n'
        + good[0].replace(b'"updates": 5', b'"updates": 7').replace(b"20,", b"null,")
        + b"[]\n"
        + good[1]
    )
    with pytest.warns(UserWarning) as warned:
        again = run_toy(resumed(args))
    told = [str(x.message) for x in warned if "not a row" in str(x.message)]
    assert [x.split(": ")[0] for x in told] == [
        f"{directory.metrics}, line {number}" for number in (1, 2, 3, 4)
    ]
    rows = read_rows(again.directory.metrics)
    assert [x["updates"] for x in rows] == [10, 15, 20]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_disk_that_is_full_at_any_write_leaves_the_last_checkpoint(tmp_path, disk):
    """The disk is full after so many pages, then after more, until a run has room."""
    args = Args(
        training=settings(tmp_path, runs_dir=str(disk.path), evaluation_interval=10)
    )
    best = replace(args, training=replace(args.training, keep_best=True))
    program, told, pages = Compiled(toy(), 5), set(), 0
    first = program.init(random.key(0))
    # Compiled once for all runs; the program takes what it is given for its own.
    program.init = lambda key: jax.tree.map(jnp.copy, first)

    def run(args):
        return train(
            program, args, args.training, key=random.key(0), num_updates=20,
            evaluate=lambda run: {"x": float(run.progress.updates.units)},
        )  # fmt: skip

    auto = replace(best, training=replace(best.training, auto_resume=True))
    whole = state_hash(run(replace(args, training=settings(tmp_path, name="w"))).run)
    while "finished" not in told and pages < 200:
        pages += 3
        # orbax's threads of a save that failed may still write, in this process:
        # each run has a folder of its own, and goes on a moment later.
        best, auto = (
            replace(x, training=replace(x.training, name=f"toy-{pages}"))
            for x in (best, auto)
        )
        disk.limit(pages)
        try:
            assert state_hash(run(best).run) == whole
            told.add("finished")
        except TrainingError as error:
            told.add(type(error).__name__)
            time.sleep(0.5)
            assert "no room to write" in str(error)
            saved = sorted(disk.path.glob(f"toy-{pages}/checkpoints/[0-9]*[0-9]"))
            if saved:
                same = identity(best, best.training)
                store = disk.path / f"toy-{pages}" / "checkpoints"
                with Checkpoints(store, same, read_only=True) as store:
                    assert store.restore(first) is not None
                    store.restore_best(first)
        disk.limit(2048)
        again = run(auto)
        assert state_hash(again.run) == whole
        shutil.rmtree(disk.path / f"toy-{pages}")
    assert told == {"DiskFullError", "finished"} and pages > 20
