"""Output that may go away while a run goes on: to a pipe whose reader has ended, a
terminal that was closed or is held by Ctrl-S, a disk that is full."""

import os
import select
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

PATIENCE = 10.0
"""Seconds that a run waits for who reads its output, once."""


@contextmanager
def lasting_output() -> Iterator[None]:
    """Within it, writing to stdout and stderr never fails, and never waits for long.

    What cannot be written is lost, and so is all that comes later, up to what Python
    writes at its end. Loss of stdout is told on stderr. Where nobody reads, only what
    is written meanwhile is lost. Letters that the encoding lacks are question marks.
    """
    streams = sys.stdout, sys.stderr
    lasting = [_Lasting(x, number) for number, x in enumerate(streams, start=1)]
    sys.stdout, sys.stderr = lasting
    try:
        yield
    finally:
        for stream in lasting:
            stream.finish()
        sys.stdout, sys.stderr = streams


class _Lasting:
    """A text stream; what is not here is the stream's own."""

    def __init__(self, stream: Any, number: int):
        """`stream`: None where the process was started without."""
        self._stream = _nothing() if stream is None else stream
        self._number = number
        self._is_read = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            if self._has_reader():
                self._write(text)
        except (OSError, ValueError) as error:
            self._lose(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            if self._has_reader():
                self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def finish(self) -> None:
        """Flushes, or Python would at its end: fail, or wait for who does not read."""
        self.flush()
        if not self._is_read:
            self._lose(TimeoutError("nobody reads it"))

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            self._stream.write(text.encode(error.encoding, "replace").decode())

    def _has_reader(self) -> bool:
        """Whether what is written now will not wait: for `PATIENCE` that is awaited."""
        self._is_read = can_write(self._stream, PATIENCE if self._is_read else 0.0)
        return self._is_read

    def _lose(self, error: Exception) -> None:
        if not (isinstance(error, OSError) or self._stream.closed):
            raise error
        nothing = _nothing()
        with suppress(OSError, ValueError):  # not every stream has a file
            # What is still in the buffer goes there, too, when it is flushed.
            os.dup2(nothing.fileno(), self._stream.fileno())
        self._stream = nothing
        if self._number == 1:
            print(f"stdout is gone ({error}): the run goes on", file=sys.stderr)


def can_write(stream: Any, seconds: float) -> bool:
    """Whether its file takes more, or fails at once; waits so long until it does."""
    try:
        number = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return True  # it has no file
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(1000 * seconds))


def _nothing() -> TextIO:
    return open(os.devnull, "w")
