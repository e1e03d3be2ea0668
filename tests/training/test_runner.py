"""The runner: what it leaves behind, and that stopping it changes nothing."""

import json
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from toy_training import Args, Part, run_toy, toy

from jaxrl_par import random
from jaxrl_par.cli.config import load
from jaxrl_par.training import TrainingConfig, train
from jaxrl_par.training.checkpoints import CheckpointError, Checkpoints, state_hash
from jaxrl_par.training.directory import RunFolderError, identity, open_directory
from jaxrl_par.training.engines import Compiled
from jaxrl_par.training.failures import DiskFullError, TrainingError
from jaxrl_par.training.metrics import read_rows
from jaxrl_par.training.runner import DivergedError


def settings(tmp_path, **changes) -> TrainingConfig:
    base = TrainingConfig(
        runs_dir=str(tmp_path / "runs"),
        name="toy",
        log_interval=5,
        checkpoint_interval=10,
        tensorboard=False,
    )
    return replace(base, **changes)


def resumed(args: Args, **changes) -> Args:
    return replace(args, training=replace(args.training, resume=True, **changes))


class CrashError(Exception):
    """Ends a run as a crash would."""


def crash_at(updates: int):
    """An evaluation that does it."""

    def evaluate(run):
        if int(run.progress.updates) >= updates:
            raise CrashError
        return {}

    return evaluate


def test_a_run_leaves_everything_in_its_folder(tmp_path):
    args = Args(training=settings(tmp_path, tensorboard=True))
    trained = run_toy(args, evaluate=lambda run: {"greedy_return": 7.0})
    folder = tmp_path / "runs" / "toy"
    assert load(folder / "config.json", Args) == args
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["updates"] for row in rows] == [5, 10, 15, 20]
    assert [row["env_steps"] for row in rows] == [20, 40, 60, 80]
    assert [row["loss"] for row in rows] == [2.0, 7.0, 12.0, 17.0]
    assert all(row["seconds"] > 0 and row["steps_per_second"] > 0 for row in rows)
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / "tensorboard").iterdir())
    with Checkpoints(folder / "checkpoints", identity(args, args.training)) as store:
        assert store.steps == [10, 20]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["updates"] == 20 and summary["env_steps"] == 80
    assert summary["episode_return"] == 17.0
    assert summary["evaluation"] == {"greedy_return": 7.0}
    assert summary["state_sha256"] == state_hash(trained.run)
    assert summary["compile_seconds"] > 0 and summary["peak_memory_bytes"] > 0


def test_the_program_is_what_was_trained(tmp_path):
    args = Args(num_updates=12, training=settings(tmp_path))
    run = jax.jit(toy().init)(random.key(0))
    step = jax.jit(toy().step)
    for _ in range(12):
        run, _ = step(run)
    trained = run_toy(args)
    assert int(trained.run.progress.updates) == 12
    assert state_hash(trained.run) == state_hash(run)


@pytest.mark.sample(1)
@pytest.mark.parametrize("crash", [1, 6, 11, 16])
def test_a_crashed_run_resumes_to_the_same_bits_and_rows(tmp_path, crash):
    args = Args(num_updates=18, training=settings(tmp_path, name="whole"))
    whole = run_toy(args)
    args = Args(num_updates=18, training=settings(tmp_path, evaluation_interval=5))
    with pytest.raises(CrashError):
        run_toy(args, evaluate=crash_at(crash))
    again = run_toy(resumed(args))
    assert state_hash(again.run) == state_hash(whole.run)

    def comparable(directory):
        timeless = ("updates", "env_steps", "loss", "episode_return")
        rows = read_rows(directory.metrics)
        return [{name: row[name] for name in timeless} for row in rows]

    assert comparable(again.directory) == comparable(whole.directory)


def test_a_finished_run_says_so_and_trains_no_more(tmp_path, capsys):
    args = Args(training=settings(tmp_path))
    first = run_toy(args)
    again = run_toy(resumed(args), evaluate=crash_at(0))
    assert again.summary == first.summary
    assert state_hash(again.run) == state_hash(first.run)
    assert "is finished" in capsys.readouterr().out


def test_a_run_whose_end_was_cut_off_gets_its_summary(tmp_path):
    args = Args(training=settings(tmp_path))
    first = run_toy(args)
    first.directory.summary.unlink()
    again = run_toy(resumed(args))
    assert again.summary.state_sha256 == first.summary.state_sha256
    assert again.summary.seconds == first.summary.seconds


def test_an_existing_run_is_not_overwritten(tmp_path):
    args = Args(training=settings(tmp_path))
    run_toy(args)
    with pytest.raises(RunFolderError, match=r"--resume, or .*--name"):
        run_toy(args)


def test_nothing_to_resume_is_an_error(tmp_path):
    run_toy(Args(training=settings(tmp_path)))
    args = Args(training=settings(tmp_path, name="ty", resume=True))
    with pytest.raises(RunFolderError, match=r"no run to resume at .*ty.* toy"):
        run_toy(args)


@pytest.mark.slow
def test_runs_without_a_name_are_numbered_and_the_last_resumed(tmp_path):
    args = Args(training=settings(tmp_path, name=None))
    assert [run_toy(args).directory.path.name for _ in range(3)] == [
        "run",
        "run-2",
        "run-3",
    ]
    assert run_toy(resumed(args)).directory.path.name == "run-3"


def test_another_config_is_not_resumed(tmp_path):
    args = Args(training=settings(tmp_path))
    run_toy(args)
    other = replace(args, seed=1, part=Part(rate=2.0))
    with pytest.raises(TrainingError) as error:
        run_toy(resumed(other, log_interval=10))
    assert "seed: 0 there, 1 now" in str(error.value)
    assert "part.rate: 0.1 there, 2.0 now" in str(error.value)
    assert "training.log_interval: 5 there, 10 now" in str(error.value)
    # What changes no number may differ.
    run_toy(resumed(args, keep_checkpoints=5, tensorboard=True))


def test_a_run_of_another_layout_is_not_resumed(tmp_path):
    """Of an older version, or of another script: not listed field by field."""
    args = Args(training=settings(tmp_path))
    directory = open_directory(args, args.training, "toy")
    config = json.loads(directory.config.read_text())
    del config["work"], config["part"]
    directory.config.write_text(json.dumps(config | {"replay": None}))
    with pytest.raises(TrainingError) as error:
        run_toy(resumed(args))
    assert str(error.value).splitlines() == [
        f"{directory.config} is of another layout than this script and this version of"
        " jaxrl_par write:",
        "  not there: part, work",
        "  only there: replay",
        "Finish the run with what began it, or start again under another --name",
    ]


def test_removed_checkpoints_are_no_fresh_start(tmp_path):
    args = Args(training=settings(tmp_path))
    folder = run_toy(args).directory.checkpoints
    for step in folder.glob("[0-9]*"):
        step.rename(tmp_path / f"moved-{step.name}")
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        run_toy(resumed(args))


def test_too_many_bad_gradients_stop_the_run_and_keep_the_last_good_step(tmp_path):
    args = Args(num_updates=100, nan_from=22, nan_to=90, training=settings(tmp_path))
    with pytest.raises(DivergedError) as error:
        run_toy(args)
    text = str(error.value)
    assert "not applied, in each of updates 23 to 35" in text
    assert "that of update 20" in text
    store = tmp_path / "runs" / "toy" / "checkpoints"
    assert sorted(x.name for x in store.glob("[0-9]*")) == ["10", "20"]


def test_a_few_bad_gradients_are_counted(tmp_path):
    args = Args(num_updates=40, nan_from=12, nan_to=20, training=settings(tmp_path))
    trained = run_toy(args)
    assert trained.summary.skipped == 8
    rows = read_rows(trained.directory.metrics)
    assert [row["skipped"] for row in rows[:5]] == [0.0, 0.0, 0.6, 1.0, 0.0]
    # At update 20 the latest gradients were bad, so that step was not saved.
    args = Args(
        num_updates=20, nan_from=12, nan_to=20, training=settings(tmp_path, name="b")
    )
    store = run_toy(args).directory.checkpoints
    assert sorted(x.name for x in store.glob("[0-9]*")) == ["0", "10"]


def test_environment_steps_can_be_the_budget(tmp_path):
    args = Args(training=settings(tmp_path))
    trained = train(toy(), args, args.training, key=random.key(0), total_env_steps=50)
    assert trained.summary.env_steps == 60
    # Where it is known how many steps an update has, no more are made.
    args = Args(training=settings(tmp_path, name="exact"))
    budget = {"total_env_steps": 50, "steps_per_update": 4}
    trained = train(toy(), args, args.training, key=random.key(0), **budget)
    assert trained.summary.env_steps == 52
    with pytest.raises(ValueError, match="steps_per_update must be at least 1, got 0"):
        budget["steps_per_update"] = 0
        train(toy(), args, args.training, key=random.key(0), **budget)
    with pytest.raises(ValueError, match="num_updates or total_env_steps"):
        train(toy(), args, args.training, key=random.key(0))
    with pytest.raises(ValueError, match="at least 1; got 0"):
        train(toy(), args, args.training, key=random.key(0), num_updates=0)


def test_a_full_disk_is_a_clear_error(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    args = Args(training=settings(tmp_path))
    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(DiskFullError, match=r"config\.json"):
        run_toy(args)


def test_a_population_is_trained_and_counted(tmp_path):
    program = toy()
    many = program._replace(
        init=lambda key: jax.vmap(program.init)(jax.random.split(key, 3)),
        step=jax.vmap(program.step),
    )
    args = Args(training=settings(tmp_path))
    trained = train(many, args, args.training, key=random.key(0), num_updates=10)
    assert trained.summary.env_steps == 3 * 40
    assert trained.summary.updates == 10
    assert read_rows(trained.directory.metrics)[0]["loss"] == [2.0, 2.0, 2.0]


def test_a_population_goes_on_while_one_member_learns(tmp_path):
    program = toy()

    def step(run):
        return jax.vmap(lambda run, first: toy(nan_from=first).step(run))(
            run, jnp.array([3, 1000])
        )

    many = program._replace(
        init=lambda key: jax.vmap(program.init)(jax.random.split(key, 2)), step=step
    )
    args = Args(training=settings(tmp_path))
    trained = train(many, args, args.training, key=random.key(0), num_updates=20)
    assert trained.summary.updates == 20 and trained.summary.skipped == 17


def test_another_config_is_not_resumed_before_the_first_checkpoint_either(tmp_path):
    args = Args(training=settings(tmp_path))
    directory = run_toy(args).directory
    for path in directory.path.iterdir():
        if path != directory.config:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(TrainingError, match="seed: 0 there, 1 now"):
        run_toy(resumed(replace(args, seed=1)))
    assert run_toy(resumed(args)).summary.updates == 20


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


@pytest.mark.sample(1)
@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_folder_that_is_gone_is_made_again_for_what_was_learned(
    tmp_path, capsys, how
):
    args = Args(training=settings(tmp_path, evaluation_interval=5))
    folder = tmp_path / "runs" / "toy"

    def take():
        folder.rename(tmp_path / "moved") if how == "moved" else shutil.rmtree(folder)

    trained = run_toy(args, evaluate=at_update(15, take))
    assert "checkpoints was moved or removed" in capsys.readouterr().err
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
def test_a_disk_that_is_full_at_any_write_leaves_the_last_checkpoint(tmp_path):
    """The disk is full after so many pages, then after more, until a run has room."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(mounted)]
    if shutil.which("mount") is None or subprocess.run(mount).returncode:
        pytest.skip("mounting a small file system takes root")
    args = Args(
        training=settings(tmp_path, runs_dir=str(mounted), evaluation_interval=10)
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

    def resize(size):
        option = f"remount,size={size}"
        subprocess.run(["mount", "-o", option, str(mounted)], check=True)

    whole = state_hash(run(replace(args, training=settings(tmp_path, name="w"))).run)
    try:
        while "finished" not in told and pages < 200:
            pages += 3
            resize(f"{4 * pages}k")
            try:
                assert state_hash(run(best).run) == whole
                told.add("finished")
            except TrainingError as error:
                told.add(type(error).__name__)
                assert "no room to write" in str(error)
                saved = sorted(mounted.glob("toy/checkpoints/[0-9]*[0-9]"))
                if saved:
                    same = identity(best, best.training)
                    store = mounted / "toy" / "checkpoints"
                    with Checkpoints(store, same, read_only=True) as store:
                        assert store.restore(first) is not None
                        store.restore_best(first)
            resize("8m")
            again = run(auto)
            assert state_hash(again.run) == whole
            shutil.rmtree(mounted / "toy")
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    assert told == {"DiskFullError", "finished"} and pages > 20
