"""Output that may go away while a run goes on: to a pipe whose reader has ended, a
terminal that was closed, a disk that is full."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


@contextmanager
def lasting_output() -> Iterator[None]:
    """Within it, writing to stdout and stderr never fails.

    What cannot be written is lost, and so is all that comes later, up to what Python
    writes at its end. Loss of stdout is told on stderr.
    """
    streams = sys.stdout, sys.stderr
    lasting = [_Lasting(x, number) for number, x in enumerate(streams, start=1)]
    sys.stdout, sys.stderr = lasting
    try:
        yield
    finally:
        for stream in lasting:
            stream.flush()  # or Python would fail to at its end
        sys.stdout, sys.stderr = streams


class _Lasting:
    """A text stream; what is not here is the stream's own."""

    def __init__(self, stream: Any, number: int):
        """`stream`: None where the process was started without."""
        self._stream = _nothing() if stream is None else stream
        self._number = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError) as error:
            self._lose(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

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


def _nothing() -> TextIO:
    return open(os.devnull, "w")
