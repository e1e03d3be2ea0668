"""Errors that a user can do something about: entry points print them, not a trace."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
# Libraries in C++ report the system's error only as text.
_FULL_TEXTS = ("no space left on device", "file too large", "disk quota exceeded")


class TrainingError(Exception):
    """Training cannot start or go on. The message says what would help."""


class DiskFullError(TrainingError):
    """Nothing more can be written."""


@contextmanager
def full_disk_is_clear(path: Path, num_bytes: int) -> Iterator[None]:
    """Turns any way in which a write says that the disk is full into one error.

    Raises:
      DiskFullError: names `path` and the `num_bytes` that had to be written to it.
    """
    try:
        yield
    except Exception as error:
        if not _says_full(error):
            raise
        free = shutil.disk_usage(path.parent).free
        raise DiskFullError(
            f"no room to write {path}: it needs about {num_bytes / 1e6:.1f} MB;"
            f" {free / 1e6:.1f} MB are free on the disk, and a quota or a limit of file"
            " sizes may allow less. Make room, then continue with --resume"
        ) from error


def _says_full(error: BaseException | None) -> bool:
    """Whether the error, or one that led to it, is that of a full disk."""
    if error is None:
        return False
    full = isinstance(error, OSError) and error.errno in _FULL
    full = full or any(text in str(error).lower() for text in _FULL_TEXTS)
    return full or _says_full(error.__cause__ or error.__context__)
