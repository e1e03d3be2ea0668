"""Folders of exported actors: whose files they are, and what of damage is told."""

import ast
import errno
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import jax
import numpy as np
import pytest
from exported import CASES, PREVIOUS, B, T, row, stream, written

from jaxrl_par import export, numpy_actor
from jaxrl_par.export import ExportError
from jaxrl_par.export.files import save
from jaxrl_par.numpy_actor import FORMAT, Actor, ActorError, config_hash
from jaxrl_par.training.failures import DiskFullError
from jaxrl_par.training.files import FileError


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """The folder of a small LSTM actor, which tests copy."""
    return written(tmp_path_factory.mktemp("saved"), CASES["lstm"])[2]


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "actor"))


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "actor").mkdir()
    (tmp_path / "actor" / "config.json").write_text("mine")
    (tmp_path / "actor" / "thesis.tex").write_text("mine")
    with pytest.raises(ExportError, match="holds other things"):
        written(tmp_path, CASES["mlp"])
    assert len(list((tmp_path / "actor").iterdir())) == 2
    assert (tmp_path / "actor" / "config.json").read_text() == "mine"


def test_files_of_others_are_left_alone(tmp_path):
    """Also those with the names of an export's, and those that somebody changed."""
    folder = tmp_path / "actor"
    folder.mkdir()
    files, config = {"actor.npz": b"1", "numpy_actor.py": b"2"}, {"format": FORMAT}
    for name in ("config.json", *files, "step_7.stablehlo", "actor.npz.new"):
        (folder / name).write_text("mine")
        with pytest.raises(ExportError, match=rf"such as {name}.*overwrite=True"):
            save(folder, files, config, False)
        assert [x.name for x in folder.iterdir()] == [name]
        assert (folder / name).read_text() == "mine"
        (folder / name).unlink()
    save(folder, files, config, False)
    save(folder, {"actor.npz": b"3"}, config, False)
    assert sorted(x.name for x in folder.iterdir()) == ["actor.npz", "config.json"]
    (folder / "actor.npz").write_text("mine now")
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(ExportError, match=r"such as actor.npz"):
        save(folder, files, config, False)
    assert (folder / "actor.npz").read_text() == "mine now"
    save(folder, files, config, True)
    assert (folder / "thesis.tex").read_text() == "mine"
    assert (folder / "actor.npz").read_bytes() == b"1"
    with pytest.raises(ExportError, match="such as thesis"):
        save(folder, files, config, False)


@pytest.mark.parametrize("old", [{}, {"actor.npz": b"0", "step_1.stablehlo": b"0"}])
def test_an_export_that_was_killed_is_replaced(tmp_path, monkeypatch, old):
    class KilledError(Exception):
        pass

    files, config = {"actor.npz": b"1", "step.stablehlo": b"2"}, {"format": FORMAT}
    whole = {}
    for count in range(100):
        folder = tmp_path / f"{count}"
        if old:
            save(folder, old, config, False)
        calls = []

        def kills(original, calls=calls, count=count):
            def call(path, *args, **options):
                calls.append(path)
                if len(calls) == count:
                    if original.__name__ == "write_bytes":
                        original(path, args[0][:0])  # cut off
                    raise KilledError
                return original(path, *args, **options)

            return call

        with monkeypatch.context() as patch, suppress(KilledError):
            for name in ("write_bytes", "replace", "unlink"):
                patch.setattr(Path, name, kills(getattr(Path, name)))
            save(folder, files, config, False)
        whole[count] = len(calls) < count
        save(folder, files, config, False)
        there = sorted(x.name for x in folder.iterdir())
        assert there == ["actor.npz", "config.json", "step.stablehlo"]
        if whole[count] and count:
            break
    assert count > 4


def test_an_actor_that_was_imported_from_its_folder_is_written_again(tmp_path):
    """Python leaves its cache there."""
    folder = written(tmp_path, CASES["mlp"])[2]
    cache = folder / "numpy_actor" / "__pycache__"
    cache.mkdir()
    (cache / "actor.cpython-311.pyc").write_bytes(b"x")
    written(tmp_path, CASES["mlp"])
    assert not cache.exists()
    assert (folder / "numpy_actor" / "actor.py").exists()
    written(tmp_path, CASES["mlp"], numpy=False)
    assert not cache.parent.exists()


def test_the_config_tells_what_the_actor_is(tmp_path):
    folder = written(tmp_path, CASES["conv, pytree"])[2]
    text = (folder / "config.json").read_text()
    # Infinities are no JSON, and other languages refuse them.
    config = json.loads(text, parse_constant=pytest.fail)
    assert config["action"]["low"] == [-2, 0] and config["action"]["high"] == [2, 5]
    pixels = config["observations"][-1]
    assert pixels["shape"] == [9] and pixels["dtype"] == "uint8"
    assert pixels["low"] is pixels["high"] is None
    assert config["network"]["torso"] == "conv" and config["network"]["channels"] == 3
    assert config["versions"]["jax"] == jax.__version__
    for name, digest in config["files"].items():
        assert sha256((folder / name).read_bytes()).hexdigest() == digest
    shipped = Path(numpy_actor.__file__).parent.glob("*.py")
    names = {f"numpy_actor/{x.name}" for x in shipped}
    assert config["files"].keys() == names | {"actor.npz", "step.stablehlo"}


def test_a_write_that_fails_leaves_no_actor(folder, tmp_path, monkeypatch):
    write_bytes = Path.write_bytes

    def full(path, data):
        if path.suffix == ".stablehlo":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError, match=r"step\.stablehlo"):
        written(tmp_path, CASES["mlp"])
    with pytest.raises(ExportError, match=r"not a whole one: no .*config\.json"):
        export.load(folder)
    monkeypatch.undo()
    export.load(written(tmp_path, CASES["mlp"])[2])


def test_where_nothing_can_be_written_the_actor_stays(saved, disk):
    folder = Path(shutil.copytree(saved, disk.path / "actor"))
    disk.read_only()
    with pytest.raises(FileError, match="cannot be written: read-only file system"):
        save(folder, {"actor.npz": b"1"}, {"format": FORMAT}, False)
    load_both(folder)


FILES = ("config.json", "actor.npz", "step.stablehlo")


def load_both(folder):
    """The first error of either form."""
    Actor.load(folder)
    export.load(folder)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
@pytest.mark.parametrize("name", FILES)
def test_damage_is_told_with_the_file(folder, name, damage):
    path = folder / name
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes(data[: len(data) // 2] if damage == "truncate" else data)
    if damage == "delete":
        path.unlink()
    with pytest.raises((ActorError, ExportError), match=f"{folder}.*{name}"):
        load_both(folder)


def edit(folder, **changes):
    """Changes the config, with the hash that belongs to it."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(config | {"sha256": config_hash(config)}))


def replace(folder, name, data):
    """Puts another file in the folder, with the hash that belongs to it."""
    files = json.loads((folder / "config.json").read_text())["files"]
    (folder / name).write_bytes(data)
    edit(folder, files=files | {name: sha256(data).hexdigest()})


def test_an_unknown_format_is_refused(folder):
    edit(folder, format=1)
    with pytest.raises(ActorError, match="has format 1, and this program reads"):
        Actor.load(folder)
    with pytest.raises(ExportError, match="has format 1, and this program reads"):
        export.load(folder)


def test_a_config_that_was_edited_is_refused(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"memory_width": 6', '"memory_width": 7'))
    with pytest.raises(ActorError, match=r"config\.json is damaged: its SHA-256"):
        Actor.load(folder)
    for content in ("[]", "{}", "{"):
        path.write_text(content)
        with pytest.raises(ActorError, match=r"config\.json is damaged"):
            Actor.load(folder)


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["npz", "npy", "pickle"])
def test_a_pickle_is_refused_and_never_run(folder, tmp_path, kind):
    victim = tmp_path / "executed"
    file, array = io.BytesIO(), np.array([Malicious(victim)], dtype=object)
    if kind == "npz":
        name = "params._Heads_0.policy"
        np.savez(file, allow_pickle=True, **{name: array})
    elif kind == "npy":
        np.save(file, array, allow_pickle=True)
    else:
        pickle.dump(array, file)
    # It would work, with the right hash, if anything unpickled it.
    replace(folder, "actor.npz", file.getvalue())
    for load, error in ((Actor.load, ActorError), (export.load, ExportError)):
        with pytest.raises(error, match=r"actor\.npz does not hold plain arrays"):
            load(folder)
    assert not victim.exists()
    np.load(io.BytesIO(file.getvalue()), allow_pickle=True)[
        name if kind == "npz" else 0
    ]
    assert victim.exists()


def test_arrays_of_another_shape_or_type_are_refused(folder):
    with np.load(folder / "actor.npz") as arrays:
        good = dict(arrays)
    name = "params.torso_memory.bias"
    for bad in (good[name][1:], good[name].astype(np.float64), None):
        file = io.BytesIO()
        others = {n: x for n, x in good.items() if n != name}
        np.savez(file, **others, **({} if bad is None else {name: bad}))
        replace(folder, "actor.npz", file.getvalue())
        with pytest.raises(ActorError, match=r"torso_memory.bias must be float32 \(24"):
            Actor.load(folder)


def test_a_program_that_jax_cannot_read_is_told(folder):
    replace(folder, "step.stablehlo", b"no flatbuffer" * 100)
    with pytest.raises(ExportError, match=r"cannot read .*step\.stablehlo, which jax"):
        export.load(folder)


ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jax", "jaxlib", "jaxrl_par", "flax"):
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
import json
import numpy as np
from numpy_actor import Actor

actor = Actor.load(sys.argv[1])
carry, actions = actor.initial_carry(3), []
with np.load(sys.argv[2]) as steps:
    names = sorted(n for n in steps.files if n != "first")
    for t, first in enumerate(steps["first"]):
        action, carry = actor.step([steps[n][t] for n in names], first, carry)
        actions.append(action.tolist())
assert not {"jax", "jaxrl_par"} & set(sys.modules)
print(json.dumps(actions))
"""


def test_the_copied_package_acts_alone(folder, tmp_path):
    steps, actor = stream(PREVIOUS), Actor.load(folder)
    leaves = {f"leaf_{i}": x for i, x in enumerate(jax.tree.leaves(steps.obs))}
    np.savez(tmp_path / "steps.npz", first=steps.first, **leaves)
    site = Path(np.__file__).parent.parent
    # Without `site`, only the folder and NumPy can be found, and the rest is blocked.
    code = f"import sys; sys.path += [{str(folder)!r}, {str(site)!r}]\n{ALONE}"
    arguments = [str(folder), str(tmp_path / "steps.npz")]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    carry, expected = actor.initial_carry(B), []
    for t in range(T):
        step = row(steps, t)
        action, carry = actor.step(step.obs, step.first, carry)
        expected.append(action.tolist())
    assert json.loads(done.stdout) == expected


def test_the_copied_package_imports_numpy_alone():
    found = set()
    for path in Path(numpy_actor.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.partition(".")[0])
    assert found - sys.stdlib_module_names == {"numpy"}
