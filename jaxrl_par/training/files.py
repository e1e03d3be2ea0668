"""Files of a run: whole at any moment, read strictly, and held by one run at a time.

Whatever goes wrong with a file is told in a sentence that names it, and the line.
"""

import errno
import fcntl
import json
import math
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from jaxrl_par.training.failures import DiskFullError, TrainingError, tell
from jaxrl_par.training.words import option, switch

LOCK = "lock"
"""Name of the file that says who writes to a folder."""

UNFINISHED = ".new"
"""How the name ends of a file that is being written; a kill may leave it."""

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
# Libraries in C++ report the system's error only as text.
_FULL_TEXTS = ("no space left on device", "file too large", "disk quota exceeded")
# What a file system says that knows no locks, as some over a network.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class FileError(TrainingError):
    """A file cannot be read or written, or does not hold what it should."""


class HeldError(FileError):
    """Another run writes to the folder."""


@contextmanager
def writing(path: Path, num_bytes: int) -> Iterator[None]:
    """Turns any way in which a write fails into one error.

    Raises:
      DiskFullError: names `path` and the `num_bytes` that had to be written to it.
      FileError: the system refuses for another reason.
    """
    try:
        yield
    except TrainingError:
        raise  # it says already what could not be written
    except Exception as error:
        if _says_full(error):
            raise DiskFullError(
                f"no room to write {path}: it needs about {num_bytes / 1e6:.1f} MB;"
                f" {_free(path) / 1e6:.1f} MB are free on the disk, and a quota or a"
                " limit of file sizes may allow less. Make room, then continue with"
                f" {switch('resume')}"
            ) from error
        if isinstance(error, OSError):
            raise FileError(f"{path} cannot be written: {_reason(error)}") from error
        raise


def write_json(path: Path, content: Any) -> None:
    """Writes JSON without NaN, as `write_bytes` writes."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8, as `write_bytes` writes."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file that is whole at any moment: as it was, or as it is to be.

    Raises:
      DiskFullError, FileError: the old file, if there was one, is as it was.
    """
    temporary = path.with_name(path.name + UNFINISHED)
    with writing(path, len(data)):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            # What is told is why it could not be written.
            with suppress(OSError):
                if temporary.is_file():
                    temporary.unlink()
            raise


def make_folder(path: Path) -> bool:
    """Makes a folder and those above it, unless it is there; whether it was made.

    Raises:
      FileError: the system refuses, or a file is in the way.
      DiskFullError: there is no room for it.
    """
    with writing(path, 1):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:
            if not path.is_dir():
                _check_links(path)
                raise
            return False
    return True


def _check_links(path: Path) -> None:
    """Raises FileError if the path leads through a link to nothing, which the system
    calls a file that exists."""
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise FileError(
                f"{path} cannot be written: {place} is a link to {os.readlink(place)},"
                " which is not there"
            )


def read_text(path: Path) -> str:
    """The whole file.

    Raises:
      FileError: it cannot be read, or is not UTF-8; the line is named.
    """
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise FileError(f"{path}, line {line}: a byte is not UTF-8") from error


def read_bytes(path: Path) -> bytes:
    """The whole file.

    Raises:
      FileError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {_reason(error)}") from error


def read_json(path: Path) -> Any:
    """What the file holds.

    Raises:
      FileError: it cannot be read, or is no JSON as `parse_json` takes it.
    """
    text = read_text(path)
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        found = f"{path}, line {error.lineno}: not JSON: {error.msg}"
        raise FileError(found) from error
    except ValueError as error:
        raise FileError(f"{path} is damaged: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file.

    Raises:
      FileError: as `read_json`, or the file holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise FileError(f"{path}, line 1: must be an object, got {shortened(content)}")
    return content


def parse_json(
    text: str | bytes, once: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """JSON as the standard has it: no NaN, no number beyond float64, no name twice.

    Args:
      once: makes an object of its (name, value), in place of refusing a name that is
        there twice.

    Raises:
      ValueError: the text is none.
    """
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=once or _without_duplicates,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def line_of(path: Path, name: str) -> int:
    """The first line of a JSON file in which the name stands, else 1."""
    lines = read_text(path).splitlines()
    named = (n for n, line in enumerate(lines, start=1) if json.dumps(name) in line)
    return next(named, 1)


def shortened(value: Any) -> str:
    """The value as JSON, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class Hold(AbstractContextManager):
    """Keeps others from writing to a folder, as long as this process lives.

    The system's lock on a file in the folder, which goes when its process does: a run
    that was killed holds nothing. Within a process it also keeps others out.
    """

    def __init__(self, folder: Path):
        """
        Raises:
          HeldError: says who holds the folder.
          FileError: the folder cannot be written to.
        """
        self._path = folder / LOCK
        while True:
            with writing(self._path, 100):
                self._file = self._path.open("a+b", buffering=0)
            self._lock(folder)
            # Its last holder may have removed the file that we opened.
            if _same_file(self._path, self._file.fileno()):
                break
            self._file.close()
        self._sign()

    def _lock(self, folder: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise _held(folder) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                self._file.close()
                raise FileError(f"{self._path}: {_reason(error)}") from error
            tell(
                f"{folder}: this file system has no locks, so nothing keeps a second"
                " run out of the folder"
            )

    def _sign(self) -> None:
        about = {"process": os.getpid(), "host": socket.gethostname()}
        with writing(self._path, 100):
            self._file.truncate(0)
            self._file.write(json.dumps(about).encode() + b"\n")

    def release(self) -> None:
        """Lets others in."""
        self._file.close()

    def remove(self) -> None:
        """Removes the file, while nobody else can hold it."""
        self._path.unlink(missing_ok=True)

    def __exit__(self, *exception: object) -> None:
        self.release()


def check_free(folder: Path) -> None:
    """Accepts a folder that nobody holds, without touching it.

    Raises:
      HeldError: says who does.
    """
    if not (folder / LOCK).is_file():
        return
    with writing(folder / LOCK, 0), (folder / LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _held(folder) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise


def _held(folder: Path) -> HeldError:
    try:
        about = read_object(folder / LOCK)
        who = f"process {about['process']} on {about['host']}"
    except (FileError, KeyError):
        who = "another process"  # which has not signed yet
    return HeldError(
        f"{folder} is being written by {who}. Wait until it ends or stop it, or give"
        f" this run another {option('name')}"
    )


def _same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _free(path: Path) -> int:
    """Bytes that are free where the path is, or would be."""
    there = next(x for x in path.absolute().parents if x.exists())
    return shutil.disk_usage(there).free


def _says_full(error: BaseException | None) -> bool:
    """Whether the error, or one that led to it, is that of a full disk."""
    if error is None:
        return False
    full = isinstance(error, OSError) and error.errno in _FULL
    full = full or any(text in str(error).lower() for text in _FULL_TEXTS)
    return full or _says_full(error.__cause__ or error.__context__)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is beyond float64")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(x for x in names if names.count(x) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found
