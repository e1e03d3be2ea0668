"""Signals as requests: training answers them between two chunks, all else at once.

Python runs handlers between two of its own instructions, so not while XLA compiles or
computes. A thread that reads signals from a socket, to which the system writes them at
once, ends the process where waiting would take too long.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from jaxrl_par.exit_codes import EXIT_CODES, end_at_once, heard
from jaxrl_par.training.compilations import Since, compilations
from jaxrl_par.training.output import can_write

COMPILER_GRACE = 10.0
"""Seconds that a compilation, or what else Python waits for, may still take when a
signal has come."""

_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
"""Schedulers send these some time before SIGTERM, which then is not a second signal."""
_AT_ONE_TIME = 0.15
"""Seconds: who signals a process and then its group, as `timeout` does, asks once."""


class Interrupted(SystemExit):
    """Training was asked to stop, and did after saving. A script exits with `code`."""

    def __init__(self, number: signal.Signals, compiling: bool = False):
        """`compiling`: a compilation was left, whose threads go on."""
        super().__init__(EXIT_CODES[number])
        self.number, self.compiling = number, compiling


class Signals:
    """Signals that came. A call says which one was the first, if any."""

    def __init__(
        self,
        last_words: Callable[[], str],
        compiling_since: Since,
        alone: bool = True,
    ):
        """
        Args:
          last_words: what is printed if the process ends at once.
          alone: no other process waits for this one.
        """
        self._alone = alone
        self.compiling_since = compiling_since
        self.saving = threading.Lock()
        """Held while a run is saved."""
        self._last_words = last_words
        self._first: signal.Signals | None = None
        self._raises = False
        self._leaving: tuple[float, Callable[[], object]] | None = None

    def __call__(self) -> signal.Signals | None:
        return self._first

    def soon(self, seconds: float = 0.5) -> signal.Signals | None:
        """The same, a moment later: other processes of a group may end by a signal that
        this one has still to hear."""
        deadline = time.monotonic() + seconds
        while self._first is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._first

    def raise_any(self) -> None:
        """
        Raises:
          Interrupted: a signal came.
        """
        if self._first is not None:
            raise Interrupted(self._first, self.compiling_since() is not None)

    def raise_for(self, number: int) -> None:
        """
        Args:
          number: the signal that came to any process of the run, or 0.

        Raises:
          Interrupted: it is one.
        """
        if number:
            self._first = self._first or signal.Signals(number)
            self.raise_any()

    @contextmanager
    def answered_at_once(self, save: Callable[[], object]) -> Iterator[None]:
        """Within it nothing is lost by leaving: a signal that came, or comes, raises.
        Not where others would wait for this process: they leave at the next border.

        If the main thread does not come back to Python for `COMPILER_GRACE` seconds,
        another one calls `save` and ends the process.

        Raises:
          Interrupted: in the main thread, wherever that is.
        """
        if not self._alone:
            yield
            return
        self._leaving, self._raises = (time.monotonic(), save), True
        try:
            self.raise_any()
            yield
            # What was raised may have been caught, as other errors are.
            self.raise_any()
        finally:
            self._leaving, self._raises = None, False

    def hear(self, number: int, frame: object) -> None:
        """The handler."""
        if self._first is None:
            self._first = signal.Signals(number)
        if self._raises:
            self._raises = False  # what is cleaned up now is not disturbed again
            self.raise_any()

    def leaving_since(self) -> float | None:
        """When `answered_at_once` began, if it did not end."""
        leaving = self._leaving  # read once: the main thread may set it to None
        return leaving and leaving[0]

    def save_and_end(self, number: signal.Signals) -> None:
        """Ends the process while the main thread is in `answered_at_once`."""
        leaving = self._leaving
        # For good: if the main thread comes back now, it waits with what it would save.
        if leaving and self.saving.acquire(timeout=COMPILER_GRACE):
            saver = threading.Thread(target=leaving[1], daemon=True)
            saver.start()
            # With an end: a device that still computes may not give its arrays.
            saver.join(COMPILER_GRACE)
        compiling = self.compiling_since() is not None
        self.end(number, "ended while compiling" if compiling else "ended")

    def end(self, number: signal.Signals, how: str) -> None:
        """Ends the process, whatever its threads do. Nothing that Python does at its
        end is reached."""
        try:
            words = self._last_words()
        except Exception as error:
            words = f"What was saved cannot be seen: {error}"
        # Nobody else ends simulators in processes: they do not hear signals.
        for child in multiprocessing.active_children():
            child.kill()
        with suppress(OSError, ValueError, AttributeError):  # the output may be gone
            # A progress display has hidden the cursor.
            cursor = "\x1b[?25h" if sys.stdout.isatty() else ""
            text = f"{cursor}\n{number.name}: {how}. {words}\n"
            if can_write(sys.stdout, 0.0):  # else it would wait for who reads
                os.write(sys.stdout.fileno(), text.encode())
        os._exit(EXIT_CODES[number])


@contextmanager
def interrupts(
    last_words: Callable[[], str] = lambda: "", *, alone: bool = True
) -> Iterator[Signals]:
    """Remembers which signal came first, for who asks.

    A second one ends the process at once, also within a compiled program. Any of them
    ends it, with its code, if a program has then been compiling for `COMPILER_GRACE`
    seconds, in whichever thread. Outside the main thread, where Python allows no
    handlers, signals do what they did before.

    Args:
      last_words: what is printed if the process ends at once.
      alone: no other process waits for this one.
    """
    with (
        compilations() as since,
        _caught_by(Signals(last_words, since, alone)) as signals,
    ):
        yield signals


@contextmanager
def exits() -> Iterator[None]:
    """Signals end the process with their codes, before training and after it.

    Raises:
      Interrupted: a signal came while nothing within this context caught it.
    """
    with (
        compilations() as since,
        _caught_by(Signals(lambda: "", since)) as signals,
    ):
        try:
            with signals.answered_at_once(lambda: None):
                yield
        except BaseException as error:
            # What Python calls while it imports turns what is raised into other errors.
            number = error.number if isinstance(error, Interrupted) else signals()
            if number is None:
                raise
            if since() or getattr(error, "compiling", False):
                # Python's end would wait for the threads of the compiler.
                signals.end(number, "ended while compiling")
            raise Interrupted(number) from error


def ignore_signals() -> None:
    """To the end of the process: what a script had to do is done, and nothing is left
    to be stopped."""
    for number in heard(_is_handler):
        signal.signal(number, signal.SIG_IGN)


def _is_handler(function: object) -> bool:
    ours = isinstance(getattr(function, "__self__", None), Signals)
    return ours or function is end_at_once


@contextmanager
def _caught_by(signals: Signals) -> Iterator[Signals]:
    """Handlers of all signals, and a thread that sees them as they arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    receiver.settimeout(0.5)
    handlers = {n: signal.signal(n, signals.hear) for n in heard(_is_handler)}
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    watch = partial(_watch, receiver, signals)
    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(before)
        sender.close()
        thread.join()
        receiver.close()
        for number, handler_before in handlers.items():
            signal.signal(number, handler_before)


def _watch(receiver: socket.socket, signals: Signals) -> None:
    """Ends the process where the main thread does not, until the socket is closed."""
    first: tuple[signal.Signals, float] | None = None
    asked = {True: 0, False: 0}  # by whether it was a warning
    latest = -_AT_ONE_TIME
    while True:
        numbers = None
        with suppress(TimeoutError):
            numbers = receiver.recv(16)
        if numbers == b"":
            return
        now = time.monotonic()
        for number in [signal.Signals(x) for x in numbers or b"" if x in EXIT_CODES]:
            first = first or (number, now)
            # The system sends SIGXCPU again and again.
            if now - latest >= _AT_ONE_TIME and number != signal.SIGXCPU:
                asked[number in _WARNINGS] += 1
            latest = now
        if first is None:
            continue
        if max(asked.values()) > 1:
            signals.end(first[0], "ended at once")
        in_time = now - COMPILER_GRACE
        if _is_between(first[1], signals.leaving_since(), in_time):
            signals.save_and_end(first[0])
        if _is_between(first[1], signals.compiling_since(), in_time):
            signals.end(first[0], "ended while compiling")


def _is_between(signalled: float, began: float | None, end: float) -> bool:
    """Whether something goes on which was there, and signalled, before `end`."""
    return began is not None and max(began, signalled) < end


def _forget() -> None:
    """In a process that was forked: signals are for the one that it came from.

    It has our handlers, and the socket that its parent listens to. Only SIGTERM ends
    it, which is how parents end their children.
    """
    ours = [n for n in EXIT_CODES if _is_handler(signal.getsignal(n))]
    if ours:
        signal.set_wakeup_fd(-1)
    for number in ours:
        ends = number == signal.SIGTERM
        signal.signal(number, signal.SIG_DFL if ends else signal.SIG_IGN)


os.register_at_fork(after_in_child=_forget)
