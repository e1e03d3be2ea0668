"""Output of a command that is only read: its reader may have seen enough."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@contextmanager
def while_it_is_read() -> Iterator[None]:
    """What is printed within it is written when it ends.

    Raises:
      SystemExit: code 1, without a word if the reader is gone, as of `| head`; after a
        sentence if the disk is full that stdout is on.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        is_full = error.errno in _FULL and error.filename is None
        if not (is_full or isinstance(error, BrokenPipeError)):
            raise
        # Python would say so once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if is_full:
            print("error: stdout cannot be written: no space left", file=sys.stderr)
        raise SystemExit(1) from None
