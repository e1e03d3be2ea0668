"""Configs in files, with options over them: what is right, and all that is wrong."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from toy_training import Args, Part

from jaxrl_par.cli import parse
from jaxrl_par.cli.files import over
from jaxrl_par.training.comparison import to_json


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def refused(capsys, *argv: str, config: type = Args) -> list[str]:
    """The lines that refuse the options, without their first and last."""
    with pytest.raises(SystemExit) as stop:
        parse(config, argv)
    assert stop.value.code == 2
    return [x.strip() for x in capsys.readouterr().err.splitlines()[1:-1]]


def read(text: str, tmp_path) -> Args:
    wrong: list[str] = []
    args = over(Args(), Path(written(tmp_path / "x.yaml", text)), wrong)
    assert not wrong
    return args


def test_options_go_over_a_file_and_the_file_over_defaults(tmp_path):
    text = "seed: 3\nwork: 7\npart: {rate: 2}\ntraining:\n  resume: true\n"
    path = written(tmp_path / "some.yaml", text)
    args = parse(Args, ["--work", "8", "--config", path, "--no-resume"])
    assert args == replace(Args(), seed=3, work=8, part=Part(rate=2.0))
    assert type(args.part.rate) is float
    assert parse(Args, [f"--config={path}"]).training.resume


def test_what_is_printed_is_given_back(tmp_path, capsys):
    options = ["--seed", "3", "--part.widths", "5", "6", "7", "--name", "x", "--resume"]
    with pytest.raises(SystemExit) as stop:
        parse(Args, [*options, "--print-config"])
    assert stop.value.code == 0
    path = written(tmp_path / "printed.json", capsys.readouterr().out)
    assert parse(Args, ["--config", path]) == parse(Args, options)


def test_yaml_is_that_of_version_1_2(tmp_path):
    """And an underscore may part the digits of a number."""
    rates = ["1e-3", "1.e-3", ".001", "1_0.5E-4", "+1e-03", "0.00_1"]
    read_as = [read(f"part: {{rate: {x}}}", tmp_path).part.rate for x in rates]
    assert read_as == [1e-3, 1e-3, 1e-3, 1.05e-3, 1e-3, 1e-3]
    assert read("part: {rate: .inf}", tmp_path).part.rate == float("inf")
    assert read("seed: 010", tmp_path).seed == 10
    assert read("seed: -3_000", tmp_path).seed == -3000
    for word in ("no", "off", "2020-01-01", "1:30", "'1e-3'", '"null"', "0x1f"):
        name = read(f"training: {{name: {word}}}", tmp_path).training.name
        assert name == word.strip("'\"")
    for nothing in ("null", "~", ""):
        assert read(f"training: {{name: {nothing}}}", tmp_path).training.name is None
    assert read("part:\n  widths:\n  - 5\n  - 6\n", tmp_path).part.widths == (5, 6)
    assert read("part: {widths: []}", tmp_path).part.widths == ()


def test_all_that_is_wrong_with_a_file_and_the_options_is_said_at_once(
    tmp_path, capsys
):
    path = written(
        tmp_path / "some.yml",
        """
seed: '3'
sede: 1
num-updates: 4
rate: 1e-3
part.rate: 1e-3
1: 2
part: {rte: 1, rate: fast, rate: 1e-3, widths: [3, x, 1.5]}
work: null
nan_from: true
nan_to: 1e6
training: {resume: 1, log_interval: 0, nmae: x}
""",
    )
    lines = refused(capsys, "--config", path, "--sedd", "1", "--num-updates", "0")
    in_file = [
        "part.rate must be written as rate within part",
        "unknown field 'sede'; did you mean 'seed'?",
        "unknown field 'num-updates'; did you mean 'num_updates'?",
        "unknown field 'rate'; did you mean 'part.rate'?",
        "unknown field '1'",
        "rate is there twice, again in line 8",
        "unknown field 'part.rte'; did you mean 'part.rate'?",
        "unknown field 'training.nmae'; did you mean 'training.name'?",
        "seed must be int, got '3'",
        "part.widths must be int, got 'x'",
        "part.widths must be int, got 1.5",
        "work must be int, got null",
        "nan_from must be int, got True",
        "nan_to must be int, got 1000000.0",
        "training.resume must be bool, got 1",
        "log_interval must be at least 1, got 0",
    ]
    elsewhere = [
        "unknown option '--sedd'; did you mean '--seed'?",
        "num_updates must be at least 1, got 0",
    ]
    assert sorted(lines) == sorted([f"{path}: {x}" for x in in_file] + elsewhere)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "x.json",
            '{"seed": 1, "part": {"rate": 1, "rate": 2}}',
            "rate is there twice",
        ),
        ("x.json", '{"seed": }', "it is not JSON: Expecting value: line 1 column 10"),
        ("x.json", "[1]", "the file must be an object, got [1]"),
        ("x.yaml", "", "the file must be an object, got null"),
        ("x.yaml", "part: [1]", "part must be an object, got [1]"),
        ("x.yaml", "seed: [1", "it is no YAML, line 1: expected ',' or ']'"),
        ("x.yaml", "a: 1\n---\nb: 2", "it is no YAML, line 2: but found another"),
        ("x.yaml", "seed: !!python/name:os.system", "it is no YAML, line 1: could not"),
        ("x.yaml", "? [1]\n: 2", "it is no YAML, line 1: found unhashable key"),
        ("x.yaml", "seed: \x00", "it is no YAML: unacceptable character"),
        ("x.yaml", f"seed: {'9' * 5000}", "it is no YAML: Exceeds the limit"),
        ("x.yaml", "seed: !!int 0o17", "it is no YAML, line 1: could not determine"),
        ("x.yaml", "seed: !!bool maybe", "it is no YAML, line 1: could not determine"),
        ("x.yaml", "a: &a [*b]", "it is no YAML, line 1: found undefined alias 'b'"),
        ("x.yaml", "part: {<<: {rate: 1}}", "unknown field 'part.<<'"),
        ("x.yaml", "a: " + "[" * 5000, "it is nested too deeply"),
        ("x.json", "[" * 100_000, "it is not JSON: it is nested too deeply"),
        ("x.toml", "seed = 1", "its name must end in .json, .yaml or .yml"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_a_sentence(
    name, text, said, tmp_path, capsys
):
    path = written(tmp_path / name, text)
    (line,) = refused(capsys, "--config", path)
    assert line.startswith(f"{path}: {said}")


def test_a_file_may_be_a_pipe_and_an_anchor_is_what_it_stands_for(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(Args, ["--seed", "3", "--name", "x: y", "--print-config"])
    path = written(tmp_path / "fd63", capsys.readouterr().out)
    expected = parse(Args, ["--seed", "3", "--name", "x: y"])
    assert parse(Args, ["--config", path]) == expected
    args = read("seed: &n 3\nwork: *n\npart: &p {rate: 2}\n", tmp_path)
    assert args == replace(Args(), seed=3, work=3, part=Part(rate=2.0))


def test_a_file_must_be_there_and_be_one(tmp_path, capsys):
    (line,) = refused(capsys, "--config", "no/such.json")
    assert line == "no/such.json: it cannot be read: No such file or directory"
    assert refused(capsys, "--config") == ["--config needs a file"]
    assert refused(capsys, "--config", "--resume") == ["--config needs a file"]
    (line,) = refused(capsys, "--config", "a.json", "--config=b.json")
    assert line == "--config takes one file, got a.json and b.json"
    (tmp_path / "x.json").write_bytes(b"\xff\xfe")
    (line,) = refused(capsys, "--config", str(tmp_path / "x.json"))
    assert line.endswith("x.json: it is no text in UTF-8")


@dataclass(frozen=True)
class Study:
    """A config that no JSON can hold as it is."""

    out: Path = Path("here")
    pair: tuple[int, float] = (1, 2.0)
    bound: tuple[int, ...] | None = None


def test_paths_pairs_and_lists_that_may_be_missing_are_read(tmp_path, capsys):
    path = written(tmp_path / "x.yaml", "out: there\npair: [3, 4]\nbound: [1]")
    read_from = parse(Study, ["--config", path])
    assert read_from == Study(Path("there"), (3, 4.0), (1,))
    path = written(tmp_path / "y.yaml", "out: 1\npair: [3]\nbound: 1")
    lines = refused(capsys, "--config", path, config=Study)
    assert lines == [
        f"{path}: out must be Path, got 1",
        f"{path}: pair must have 2 entries, got [3]",
        f"{path}: bound must be a list of int or null, got 1",
    ]
    with pytest.raises(SystemExit):
        parse(Study, ["--print-config"])
    assert json.loads(capsys.readouterr().out)["out"] == "here"


def test_the_config_of_another_experiment_is_refused_by_both_names(tmp_path, capsys):
    def of(experiment):
        values = to_json(Args(seed=3)) | {"provenance": {"experiment": experiment}}
        return written(tmp_path / "config.json", json.dumps(values))

    (line,) = refused(capsys, "--config", of("ppo"))
    assert line.endswith("it is of the experiment ppo, and this is toy_training")
    # Started as a script, or imported.
    for same in ("toy_training", "toy_training.py", "somewhere.toy_training"):
        assert parse(Args, ["--config", of(same)]).seed == 3


def test_help_tells_of_files_and_of_what_a_file_says(tmp_path, capsys):
    path = written(tmp_path / "x.yaml", "seed: 12345")
    with pytest.raises(SystemExit) as stop:
        parse(Args, ["--config", path, "--help"], program="jaxrl-par toy")
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert "--config FILE" in told and "--print-config" in told
    assert "12345" in told and "usage: jaxrl-par toy " in told
