"""Configs: everything that is wrong is said, at once, before a device is used."""

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from toy_training import Args, Part

from jaxrl_par import cli
from jaxrl_par.cli import ConfigError, load, parse
from jaxrl_par.cli.config import parse_words
from jaxrl_par.errors import RefusedError, problems
from jaxrl_par.training import TrainingConfig
from jaxrl_par.training.comparison import differences, named, to_json


def refused(capsys, *argv: str, config: type = Args) -> str:
    """What `parse` prints when it refuses the options."""
    with pytest.raises(SystemExit) as stop:
        parse(config, argv)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_options_reach_all_parts():
    args = parse(
        Args, ["--seed", "-3", "--part.rate=2", "--resume", "--part.widths", "7"]
    )
    assert args.seed == -3
    assert args.part == Part(rate=2.0, widths=(7,))
    assert args.training == replace(Args().training, resume=True)


def test_a_negative_number_is_no_option(capsys):
    """Nor is it when something else is wrong, and options are looked at one by one."""
    error = refused(capsys, "--seed", "-3", "--part.rate", "fast")
    assert "a problem with the options:" in error
    assert "--part.rate must be float, got fast" in error


def test_a_value_that_is_long_is_told_in_a_line(capsys):
    """Python makes no integer of so many digits."""
    error = refused(capsys, "--seed", "1" * 5000)
    assert f"--seed must be int, got {'1' * 57}...\n" in error


@dataclass(frozen=True)
class Study:
    """A config that has a whole experiment's in it."""

    num_seeds: int = 3
    settings: Args = field(default_factory=Args)


def test_a_flat_part_of_a_part_has_no_prefix_either(capsys):
    """In options, in their errors, and in those of values."""
    args = parse(Study, ["--log-interval", "7", "--settings.part.rate", "2"])
    assert args.settings.training.log_interval == 7 and args.settings.part.rate == 2
    error = refused(
        capsys, "--settings.log-interval", "7", "--log-interval", "x", config=Study
    )
    assert "unknown option '--settings.log-interval'" in error
    assert "did you mean '--log-interval'?" in error
    assert "--log-interval must be int, got x" in error
    error = refused(capsys, "--log-interval", "0", "--settings.seed", "a", config=Study)
    assert "\n  log_interval must be at least 1, got 0" in error
    assert "--settings.seed must be int, got a" in error


def test_all_errors_are_reported_at_once(capsys):
    error = refused(
        capsys, "lost", "--sede", "1", "--part.rte", "2", "--num-updates", "0",
        "--part.rate", "-1", "--log_interval", "0", "--work", "much", "--no-resum",
        "--part.widths", "a", "3", "--resume", "yes",
    )  # fmt: skip
    assert "10 problems with the options" in error
    assert "'lost' belongs to no option" in error
    assert "unknown option '--sede'; did you mean '--seed'?" in error
    assert "unknown option '--part.rte'; did you mean '--part.rate'?" in error
    assert "unknown option '--no-resum'; did you mean '--no-resume'?" in error
    assert "--work must be int, got much" in error
    assert "--part.widths must be a list of int, got a 3" in error
    assert "--resume takes no value, got yes" in error
    assert "num_updates must be at least 1, got 0" in error
    assert "part.rate must be above 0, got -1.0" in error
    assert "log_interval must be at least 1, got 0" in error
    assert "Known:" not in error


def test_a_misspelled_choice_gets_the_nearest(capsys, tmp_path):
    error = refused(capsys, "--topology", "tread", config=cli.Args)
    assert "'workers' or 'fleet', got tread; did you mean 'threads'?" in error
    error = refused(capsys, "--backend", "envpol", config=cli.Args)
    assert "or null, got envpol; did you mean 'envpool'?" in error
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_json(cli.Args()) | {"topology": "Delayd"}))
    with pytest.raises(ConfigError, match=r"got 'Delayd'; did you mean 'delayed'\?"):
        load(path, cli.Args)


def test_out_of_range_alone_is_refused(capsys):
    error = refused(capsys, "--checkpoint-interval", "7", "--keep-checkpoints", "1")
    assert "checkpoint_interval must be a multiple of log_interval = 5, got 7" in error
    assert "keep_checkpoints must be at least 2, got 1" in error


def test_a_service_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("jaxrl_par.training.settings.find_spec", lambda name: None)
    (problem,) = TrainingConfig(wandb=True).problems()
    assert "pip install 'jaxrl-par[logging]'" in problem


def test_options_are_refused_before_a_device_is_used():
    code = """
import sys
import toy_training
from jax._src import xla_bridge
from jaxrl_par.cli import main
try:
    main(toy_training.run_toy, toy_training.Args)
finally:
    print("backends", len(xla_bridge._backends))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "--num-updates", "0", "--sed", "1"],
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "2 problems" in done.stderr
    assert "backends 0" in done.stdout


def test_json_gives_the_same_config(tmp_path):
    args = Args(seed=3, part=Part(rate=1.0, widths=(1,)))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_json(args)))
    assert load(path, Args) == args


def test_all_errors_of_a_file_are_reported_at_once(tmp_path):
    values = to_json(Args())
    values["seed"] = 1.5
    values["part"] |= {"rate": "fast", "widths": [1, True], "rte": 1}
    values["training"]["name"] = 3
    del values["work"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError) as error:
        load(path, Args)
    text = str(error.value)
    assert len(error.value.problems) == 6
    assert "seed must be int, got 1.5" in text
    assert "part.rate must be float, got 'fast'" in text
    assert "part.widths must be int, got True" in text
    assert "unknown field 'part.rte'; did you mean 'part.rate'?" in text
    assert "training.name must be str or null, got 3" in text
    assert "work is missing" in text


def test_values_of_a_file_are_checked(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_json(Args(num_updates=0))))
    with pytest.raises(ConfigError, match="num_updates must be at least 1"):
        load(path, Args)
    path.write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        load(path, Args)


def test_differences_have_dotted_names():
    old, new = to_json(Args()), to_json(Args(seed=1, part=Part(rate=2.0)))
    del new["work"]
    assert differences(old, new) == {
        "seed": (0, 1),
        "part.rate": (0.1, 2.0),
        "work": (0, "absent"),
    }
    assert not differences(old, old)


def test_keys_that_json_would_make_one_are_refused():
    assert to_json({1: "a", "2": "b"}) == {"1": "a", "2": "b"}
    told = r"keys of config.part must have names of their own, got 1 and '1'"
    with pytest.raises(RefusedError, match=told):
        to_json({"part": {1: "a", "1": "b"}})


def test_leaves_of_one_name_are_refused():
    """One would be saved, and restored as both."""
    assert list(named({"a.b": 1, "a": {"c": 2}})) == ["a.c", "a.b"]
    with pytest.raises(RefusedError, match=r"leaves .*, got 'a.b' and 'a.b'"):
        named({"a.b": 1, "a": {"b": 2}})


def test_defaults_have_no_problems():
    assert problems(Args()) == []


@dataclass(frozen=True)
class Command:
    """Takes words besides these."""

    rate: float = 1.0
    """A number."""
    place: Path | None = None
    loud: bool = False


def words_and_options(*argv: str, words: str = "FOLDER ..."):
    return parse_words(Command, argv, "toy", words)


@pytest.mark.parametrize(
    ("argv", "words", "command"),
    [
        (["a"], ["a"], Command()),
        (["--rate", "-2", "a", "--place=b"], ["a"], Command(-2.0, Path("b"))),
        (["a", "--loud", "b", "--place", "c", "d"], ["a", "b", "d"],
         Command(place=Path("c"), loud=True)),
        (["--rate", "3", "--", "--rate", "a"], ["--rate", "a"], Command(3.0)),
    ],
)  # fmt: skip
def test_words_stand_anywhere_among_options(argv, words, command):
    assert words_and_options(*argv) == (words, command)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], ["FOLDER is missing"]),
        (["a", "b"], ["one FOLDER is taken, got 'a' and 'b'"]),
        (["a", "--rat", "2"], ["unknown option '--rat'; did you mean '--rate'?"]),
        (["--rate", "x", "--place"],
         ["--rate must be float, got x", "--place must be", "FOLDER is missing"]),
        (["a", "--rate", "nan"], ["rate must be float, got nan"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_words_and_options_is_told_at_once(argv, told, capsys):
    with pytest.raises(SystemExit) as stop:
        words_and_options(*argv, words="FOLDER")
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("with the options:")
    assert len(lines) == len(told) + 2
    assert all(x.strip().startswith(y) for x, y in zip(lines[1:-1], told, strict=True))


def test_the_help_of_a_command_names_its_words(capsys):
    with pytest.raises(SystemExit) as stop:
        words_and_options("a", "-h")
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith("usage: toy FOLDER ... [OPTIONS]\n\nTakes words besides")
    assert "  --place PATH or None\n" in told and "--config" not in told
