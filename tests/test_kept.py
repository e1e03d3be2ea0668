"""Help that is kept, and its cache folder."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxrl_par import kept
from jaxrl_par.__main__ import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "jaxrl_par" / "help"


class Command:
    """Prints how many times it was run."""

    runs = 0

    def __call__(self):
        self.runs += 1
        print(f"help {self.runs}")
        raise SystemExit(0)


def told(capsys, run, words=("--help",), about=("ppo",)) -> str:
    with pytest.raises(SystemExit) as stop:
        kept.run_or_help(run, words, *about)
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ["ppo", "compare"])
def test_help_that_was_kept_is_the_fresh_one(name, capsys, folder, monkeypatch):
    def shown():
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        return capsys.readouterr().out

    fresh = shown()
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(kept, "_printed", pytest.fail)
    assert shown() == fresh and fresh.isascii()
    assert fresh.startswith(f"usage: jaxrl-par {name} ")


@pytest.mark.slow
def test_kept_help_needs_no_jax(tmp_path, folder):
    """The first process makes it, the second finds it."""
    code = """
import sys
from jaxrl_par.__main__ import main
try: main(["a2c", "--help"])
finally: print({"jax", "flax", "optax", "numpy", "tyro"} & sys.modules.keys())
"""
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        for _ in range(2)
    )
    help, told = (x.stdout.rsplit("\n", 2)[0] for x in (first, second))
    assert help == told and "--a2c.gamma" in help
    assert "'jax'" in first.stdout and second.stdout.endswith("\nset()\n")


def test_only_what_asks_for_help_alone_is_kept(capsys, folder):
    run = Command()
    for words in (["--help", "--seed", "1"], ["--seed", "--help"], []):
        with pytest.raises(SystemExit):
            kept.run_or_help(run, words, "ppo")
    assert not folder.exists() and run.runs == 3
    assert told(capsys, run, ["-h"]) == "help 1\nhelp 2\nhelp 3\nhelp 4\n"
    assert told(capsys, run, ["--help"]) == "help 4\n"


def test_a_change_of_what_made_it_makes_it_anew(capsys, folder, tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "part").mkdir(parents=True)
    source = package / "part" / "a.py"
    source.write_text("x = 1")
    stamp = source.stat()
    monkeypatch.setattr(kept, "_PACKAGE", package)
    run = Command()
    assert told(capsys, run) == told(capsys, run) == "help 1\n"
    # Neither its size nor its time tell.
    source.write_text("x = 2")
    os.utime(source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert told(capsys, run) == told(capsys, run) == "help 2\n"
    source.rename(package / "b.py")
    assert told(capsys, run) == "help 3\n"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version", "4.0")
        assert told(capsys, run) == "help 4\n"
    assert len(list(folder.iterdir())) == 1, "an old one stays"
    # Of others there may be one each.
    assert told(capsys, run, about=("ppo", "ppo.py")) == "help 5\n"
    for i, width in enumerate(("61", "62"), start=6):
        monkeypatch.setenv("COLUMNS", width)
        assert told(capsys, run) == told(capsys, run) == f"help {i}\n"
    assert len(list(folder.iterdir())) == 4


def test_what_fails_is_not_kept(capsys, folder):
    def fails():
        print("half")
        raise SystemExit(2)

    with pytest.raises(SystemExit) as stop:
        kept.run_or_help(fails, ["--help"], "ppo")
    assert stop.value.code == 2 and not folder.exists()


@pytest.mark.parametrize("damage", [b"", b"\n", b"\xff\xfe", b"half"])
def test_a_damaged_file_is_made_anew(damage, capsys, folder):
    run = Command()
    told(capsys, run)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for content in (damage, whole[:-1], whole + b"x"):
        file.write_bytes(content)
        before = run.runs
        assert told(capsys, run) == f"help {before + 1}\n"
    file.unlink(), file.mkdir()
    assert told(capsys, run) == f"help {run.runs}\n"
    assert list(folder.iterdir()) == [file]


@pytest.mark.parametrize("place", ["/proc/none", "/dev/null/x", "/dev/full", None])
def test_without_a_cache_folder_it_is_made_each_time(place, capsys, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", place or "")
    monkeypatch.setattr(Path, "home", nowhere)
    run = Command()
    assert [told(capsys, run) for _ in range(2)] == ["help 1\n", "help 2\n"]


def test_a_full_disk_leaves_nothing(capsys, folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert told(capsys, Command()) == "help 1\n"
    assert list(folder.iterdir()) == []


def test_who_writes_at_once_leaves_a_whole_file(folder):
    path, state = folder / "a.txt", b"state"
    texts = [str(i) * 100_000 for i in range(8)]

    def write_and_read(text):
        for _ in range(20):
            kept._write(path, state, text)
            assert kept._read(path, state) in texts

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_and_read, texts))
    assert list(folder.iterdir()) == [path]


def test_a_relative_cache_folder_is_none(monkeypatch):
    """It would be another one after each change of folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert kept.cache_folder() == Path("/home/me/.cache/jaxrl_par")
