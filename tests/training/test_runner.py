"""The runner: what it leaves behind, and that stopping it changes nothing."""

import inspect
import json
import shutil
import signal
import threading
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from toy_training import (
    Args,
    CrashError,
    Part,
    crash_at,
    resumed,
    run_toy,
    settings,
    toy,
)

from jaxrl_par import random
from jaxrl_par.cli import load
from jaxrl_par.errors import RefusedError
from jaxrl_par.training import train
from jaxrl_par.training.checkpoints import CheckpointError, Checkpoints, state_hash
from jaxrl_par.training.directory import RunFolderError, identity, open_directory
from jaxrl_par.training.engines import Compiled
from jaxrl_par.training.failures import DiskFullError, TrainingError
from jaxrl_par.training.interrupts import Interrupted
from jaxrl_par.training.loop import DivergedError
from jaxrl_par.training.rows import read_rows


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
    with pytest.raises(RunFolderError, match=r"resume=True, or .*another name"):
        run_toy(args)


def test_wrong_things_are_named_before_a_folder_is_made(tmp_path):
    wrong = {
        "key": (0, "key must be one, as random.key"),
        "evaluate": (3, "evaluate must be a function of a run, got int: 3"),
        "extends": ("num_updates", "extends must be a tuple of names"),
    }
    for name, (value, message) in wrong.items():
        arguments = {"key": random.key(0), "num_updates": 5} | {name: value}
        with pytest.raises(RefusedError, match=message):
            inspect.unwrap(train)(toy(), None, settings(tmp_path), **arguments)
    assert not (tmp_path / "runs").exists()


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
        "Finish the run with what began it, or start again under another name",
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
    with pytest.raises(ValueError, match=r"a whole number of 1 to 10*; got 0"):
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


@pytest.mark.slow
def test_another_config_is_not_resumed_before_the_first_checkpoint_either(tmp_path):
    args = Args(training=settings(tmp_path))
    directory = run_toy(args).directory
    for path in directory.path.iterdir():
        if path != directory.config:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(TrainingError, match="seed: 0 there, 1 now"):
        run_toy(resumed(replace(args, seed=1)))
    assert run_toy(resumed(args)).summary.updates == 20


# What is left when something fails ---------------------------------------------------


def steps(directory) -> list[int]:
    return sorted(int(x.name) for x in directory.glob("checkpoints/[0-9]*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    """The hash of the toy's state after 20 updates."""
    args = Args(training=settings(tmp_path_factory.mktemp("whole")))
    return state_hash(run_toy(args).run)


def fails_to_write(tmp_path):
    from jaxrl_par.training.rows import JsonLines

    class Broken(JsonLines):
        def write(self, row):
            if row["updates"] == 10:
                raise OSError(5, "Input/output error")
            super().write(row)

    return {"jaxrl_par.training.keeping.JsonLines": Broken}


def fails_to_evaluate(tmp_path):
    return {}


@pytest.mark.sample(1)
@pytest.mark.parametrize("failure", [fails_to_write, fails_to_evaluate])
def test_an_error_saves_what_is_whole_and_is_told(
    tmp_path, capsys, monkeypatch, whole, failure
):
    """R5: the learner is whole, so it is saved as for a signal."""
    for name, broken in failure(tmp_path).items():
        monkeypatch.setattr(name, broken)
    changes = {"checkpoint_interval": 0, "evaluation_interval": 5}
    args = Args(training=settings(tmp_path, **changes))
    with pytest.raises((CrashError, OSError)):
        run_toy(args, evaluate=crash_at(10))
    folder = tmp_path / "runs" / "toy"
    assert steps(folder) == [0, 10]
    assert "ended by an error at update 10" in capsys.readouterr().out
    logged = [row["updates"] for row in read_rows(folder / "metrics.jsonl")]
    assert logged == ([5] if failure is fails_to_write else [5, 10])
    monkeypatch.undo()
    assert state_hash(run_toy(resumed(args)).run) == whole
    assert "resuming at update 10" in capsys.readouterr().out


class Partial(Compiled):
    """An engine that fails in the middle of the third chunk."""

    fails = True

    def advance(self, run, num_updates):
        if int(run.progress.updates) == 10 and Partial.fails:
            self.left = super().advance(run, 3)
            raise CrashError
        return super().advance(run, num_updates)

    def rescue(self):
        return self.left


@pytest.mark.slow
def test_updates_of_a_chunk_that_failed_are_kept(tmp_path, whole):
    args = Args(training=settings(tmp_path, checkpoint_interval=0))

    def run(args):
        engine = Partial(toy(), 5)
        key = random.key(0)
        return train(engine, args, args.training, key=key, num_updates=20)

    with pytest.raises(CrashError):
        run(args)
    Partial.fails = False
    trained = run(resumed(args))
    assert steps(trained.directory.path) == [13, 20]
    rows = read_rows(trained.directory.metrics)
    # The next chunk ends where it would have.
    assert [row["updates"] for row in rows] == [5, 10, 13, 15, 20]
    assert state_hash(trained.run) == whole


@pytest.mark.slow
def test_a_state_that_an_update_used_up_is_not_saved(tmp_path):
    class Spoils(Compiled):
        def advance(self, run, num_updates):
            if int(run.progress.updates) == 10:
                super().advance(run, num_updates)
                raise MemoryError("out of memory")
            return super().advance(run, num_updates)

    args = Args(training=settings(tmp_path, checkpoint_interval=5))
    with pytest.raises(MemoryError):
        train(Spoils(toy(), 5), args, args.training, key=random.key(0), num_updates=20)
    assert steps(tmp_path / "runs" / "toy") == [5, 10]


def signals_at(updates: int, number: signal.Signals):
    """An evaluation in which a signal comes."""

    def evaluate(run):
        if int(run.progress.updates) >= updates:
            signal.raise_signal(number)
            time.sleep(60)
        return {}

    return evaluate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGHUP, 129), (signal.SIGUSR1, 75), (signal.SIGINT, 130)],
)
def test_a_signal_ends_an_evaluation_and_the_run_is_saved(
    tmp_path, capsys, whole, number, code
):
    changes = {"checkpoint_interval": 0, "evaluation_interval": 5}
    args = Args(training=settings(tmp_path, **changes))
    for updates in (10, 20):
        with pytest.raises(Interrupted) as ended:
            again = args if updates == 10 else resumed(args)
            run_toy(again, evaluate=signals_at(updates, number))
        assert ended.value.code == code
        assert f"{number.name}: stopped at update {updates}." in capsys.readouterr().out
        assert steps(tmp_path / "runs" / "toy")[-1] == updates
    trained = run_toy(resumed(args), evaluate=lambda run: {"return": 1.0})
    assert state_hash(trained.run) == whole and trained.summary.evaluation


def test_an_error_that_a_signal_led_to_is_the_signal(tmp_path, capsys):
    """R2: processes of a simulator may end before this one hears."""

    def evaluate(run):
        threading.Timer(0.2, signal.raise_signal, [signal.SIGTERM]).start()
        raise ConnectionResetError("Connection reset by peer")

    args = Args(training=settings(tmp_path, evaluation_interval=5))
    with pytest.raises(Interrupted) as ended:
        run_toy(args, evaluate=evaluate)
    assert ended.value.code == 75
    assert "SIGTERM: stopped at update 5." in capsys.readouterr().out
    assert steps(tmp_path / "runs" / "toy") == [0, 5]


def test_a_signal_ends_what_is_made_before_training(tmp_path, capsys):
    class Slow(Compiled):
        def init(self, key):
            signal.raise_signal(signal.SIGTERM)
            time.sleep(60)
            return super().init(key)

    args = Args(training=settings(tmp_path))
    with pytest.raises(Interrupted):
        engine = Slow(toy(), 5)
        train(engine, args, args.training, key=random.key(0), num_updates=20)
    assert "SIGTERM: stopped before training. Noth" in capsys.readouterr().out
    assert steps(tmp_path / "runs" / "toy") == []
