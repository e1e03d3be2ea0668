"""A run says what it comes from."""

import json
import subprocess
from dataclasses import dataclass
from types import SimpleNamespace

import jax
import pytest
from toy_training import Args as ToyArgs

from jaxrl_par.presets.a2c import Args
from jaxrl_par.training import TrainingConfig, provenance
from jaxrl_par.training.directory import open_directory


@dataclass(frozen=True)
class Own(Args):
    """Of this module, although the preset's."""


def started(monkeypatch, argv, spec=None, **main):
    """Pretends that the process was started like this."""
    main = SimpleNamespace(__spec__=spec, **main)
    monkeypatch.setitem(provenance.sys.modules, "__main__", main)
    monkeypatch.setattr(provenance.sys, "argv", argv)


def test_it_names_preset_command_and_versions(monkeypatch):
    started(monkeypatch, ["x/a b.py", "--name", "it's"], __file__="x/a b.py")
    told = provenance.provenance(Args())
    assert json.loads(json.dumps(told)) == told
    assert told["experiment"] == "a2c"
    assert told["command"] == """'x/a b.py' --name 'it'"'"'s'"""
    assert told["versions"]["jax"] == jax.__version__
    assert {"python", "jaxrl_par", "jaxlib", "flax", "optax", "numpy"} < {
        *told["versions"]
    }


def test_an_experiment_is_called_after_what_defines_it(monkeypatch):
    name = provenance.experiment_name
    assert name(Own) == __name__
    started(monkeypatch, ["x.py"], __file__="/there/x.py")
    monkeypatch.setattr(Own, "__module__", "__main__")
    assert name(Own) == name(TrainingConfig) == name(dict) == "x.py"
    started(monkeypatch, ["/python/ipykernel_launcher.py", "-f", "kernel.json"])
    assert name(Own) == "session"
    assert provenance.provenance(Args())["command"] is None


def test_no_path_of_the_machine_is_told(monkeypatch):
    started(monkeypatch, ["/venv/bin/jaxrl-par", "a2c"], __file__="/venv/bin/jaxrl-par")
    assert provenance.provenance(Args())["command"] == "jaxrl-par a2c"
    module = SimpleNamespace(name="jaxrl_par.__main__")
    started(monkeypatch, ["/x/__main__.py", "a2c"], module, __file__="/x/__main__.py")
    assert provenance.provenance(Args())["command"] == "python -m jaxrl_par a2c"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A tree with one committed file, in which `Own` is defined; and git in it."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")

    def git(*arguments):
        who = ["-c", "user.name=n", "-c", "user.email=e"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init")
    (tmp_path / "own.py").write_text("1\n")
    git("add", ".")
    git("commit", "-m", "x")
    git("tag", "v1")
    module = SimpleNamespace(__file__=str(tmp_path / "own.py"))
    monkeypatch.setitem(provenance.sys.modules, "own", module)
    monkeypatch.setattr(Own, "__module__", "own")
    return tmp_path, git


def test_it_has_the_commit_of_the_source_and_whether_that_was_changed(tree):
    folder, git = tree
    head = git("rev-parse", "HEAD")
    assert provenance.provenance(Own())["commit"] == head
    (folder / "untracked").touch()
    assert provenance.provenance(Own())["commit"] == head
    (folder / "own.py").write_text("2\n")
    assert provenance.provenance(Own())["commit"] == f"{head}-dirty"


def test_without_a_tree_there_is_no_commit(tree, monkeypatch):
    """A package in an environment within a tree that ignores it is not of that tree."""
    folder, _ = tree
    elsewhere = SimpleNamespace(__file__=str(folder / "installed.py"))
    (folder / "installed.py").touch()
    monkeypatch.setitem(provenance.sys.modules, "own", elsewhere)
    package = SimpleNamespace(__version__="1", __file__=elsewhere.__file__)
    monkeypatch.setattr(provenance, "import_module", lambda name: package)
    assert provenance.provenance(Own())["commit"] is None
    monkeypatch.setenv("PATH", "")
    assert provenance.provenance(Own())["commit"] is None


def test_config_json_has_it_and_a_run_resumes_whatever_it_says(tmp_path):
    settings = TrainingConfig(runs_dir=str(tmp_path), name="run", resume=False)
    args = ToyArgs(training=settings)
    config = open_directory(args, settings, "x").config
    values = json.loads(config.read_text())
    assert values[provenance.KEY]["experiment"] == "toy_training"
    values[provenance.KEY] = {"commit": "another"}
    config.write_text(json.dumps(values))
    resumed = TrainingConfig(runs_dir=str(tmp_path), name="run", resume=True)
    open_directory(ToyArgs(training=resumed), resumed, "x")
    assert json.loads(config.read_text())[provenance.KEY] == {"commit": "another"}
