"""Files: whole or as they were, read strictly, and held by one run at a time."""

import errno
import fcntl
import json
import os
import resource
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from jaxrl_par.training.failures import DiskFullError
from jaxrl_par.training.files import (
    FileError,
    HeldError,
    Hold,
    check_free,
    make_folder,
    read_json,
    read_object,
    write_json,
    write_text,
)

# As `Hold` does, without jax, whose import takes seconds.
HOLDER = """
import fcntl, json, os, sys, time
file = open(f"{sys.argv[1]}/lock", "a+")
fcntl.flock(file, fcntl.LOCK_EX)
print(json.dumps({"process": os.getpid(), "host": "here"}), file=file, flush=True)
print("held", flush=True)
time.sleep(100)
"""


@contextmanager
def file_sizes_up_to(num_bytes: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_as_it_was_or_as_it_is_to_be(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    for size in range(9):
        with file_sizes_up_to(size), pytest.raises(DiskFullError, match=r"a\.txt"):
            write_text(path, "something")
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]
    with file_sizes_up_to(9):
        write_text(path, "something")
    assert path.read_text() == "something"


def test_the_first_reason_is_told_where_nothing_can_be_removed_either(
    tmp_path, monkeypatch
):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    def refused(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", broken)
    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(FileError, match=r"a cannot be written: input/output error"):
        write_text(tmp_path / "a", "text")


def test_what_a_system_refuses_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "a", tmp_path / "none" / "a"):
        with pytest.raises(FileError, match=rf"^{path} cannot be written: "):
            write_text(path, "text")
    with pytest.raises(FileError, match=r"file/deep/a cannot be written: not a dir"):
        make_folder(tmp_path / "file" / "deep" / "a")
    with pytest.raises(FileError, match="file cannot be written: file exists"):
        make_folder(tmp_path / "file")
    with pytest.raises(FileError, match="too long"):
        make_folder(tmp_path / ("a" * 300))
    assert make_folder(tmp_path / "a" / "b") and not make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_link_to_nothing_is_told_as_such(tmp_path, below):
    """The system says that the file exists."""
    (tmp_path / "link").symlink_to(tmp_path / "unmounted")
    place = tmp_path / "link" / below
    told = f"{place} cannot be written: {tmp_path}/link is a link to"
    with pytest.raises(FileError, match=f"^{told} {tmp_path}/unmounted, which is not"):
        make_folder(place)
    (tmp_path / "unmounted").mkdir()
    assert make_folder(place) == bool(below)


def test_a_number_that_json_has_not_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("inf")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: not JSON"),
        (b'{"a": 1,\n "b": }', "line 2: not JSON"),
        (b'{"a": 1,\n "b": "\xff"}', "line 2: a byte is not UTF-8"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"a": -Infinity}', "-Infinity is no JSON"),
        (b'{"a": 1e999}', "1e999 is beyond float64"),
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", r"line 1: must be an object, got \[\]"),
        (b"null", "line 1: must be an object, got null"),
    ],
)
def test_a_damaged_file_is_told_by_its_name_and_line(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(FileError, match=message) as error:
        read_object(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileError, match=f"^{path} cannot be read: "):
            read_json(path)


def test_a_folder_is_held_by_one(tmp_path):
    with Hold(tmp_path):
        check_free(tmp_path / "elsewhere")
        for take in (Hold, check_free):
            with pytest.raises(HeldError) as error:
                take(tmp_path)
            who = f"process {os.getpid()} on {socket.gethostname()}"
            assert f"{tmp_path} is being written by {who}" in str(error.value)
    check_free(tmp_path)
    with Hold(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["process"] == os.getpid()


def test_a_process_that_was_killed_holds_nothing(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(HeldError, match=f"process {process.pid} on here"):
            Hold(tmp_path)
        process.kill()
    Hold(tmp_path).release()


def test_who_waits_for_a_lock_that_is_removed_takes_the_new_one(tmp_path, monkeypatch):
    """Two could otherwise hold a folder: by a file that is gone, and by the next."""
    flock, first = fcntl.flock, [True]

    def removed_meanwhile(file, operation):
        if first.pop() if first else False:
            (tmp_path / "lock").unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with Hold(tmp_path), pytest.raises(HeldError):
        Hold(tmp_path)


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    def none(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with Hold(tmp_path):
        (line,) = capsys.readouterr().err.splitlines()
        assert f"warning: {tmp_path}: this file system has no locks" in line
        check_free(tmp_path)
