"""SIGTERM and Ctrl-C as requests that training answers between two chunks.

Python runs handlers between two of its own instructions, so not while XLA compiles or
computes. A thread that reads signals from a socket, to which the system writes them at
once, ends the process where waiting would take too long.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import jax

EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}
"""75 is EX_TEMPFAIL of sysexits.h: a scheduler may start the job again."""

COMPILER_GRACE = 10.0
"""Seconds that a compilation may still take when a signal has come."""

_COMPILATION = "/jax/core/compile/backend_compile_duration"


class Interrupted(SystemExit):
    """Training was asked to stop, and did after saving. A script exits with `code`."""


@contextmanager
def interrupts(
    last_words: Callable[[], str] = lambda: "",
) -> Iterator[Callable[[], signal.Signals | None]]:
    """Catches both signals; the function says which one came first, if any.

    A second Ctrl-C ends the process at once, also within a compiled program. Any of
    them ends it, with its code, if a program has then been compiling for
    `COMPILER_GRACE` seconds, in whichever thread. Outside the main thread, where Python
    allows no handlers, signals do what they did before.

    Args:
      last_words: what is printed if the process ends while it compiles.
    """
    received: list[signal.Signals] = []

    def remember(number: int, frame: object) -> None:
        received.append(signal.Signals(number))

    with _compilations() as since, _caught_by(remember, since, last_words):
        yield lambda: received[0] if received else None


@contextmanager
def exits() -> Iterator[None]:
    """Both signals end the process with their codes, before training and after it.

    Raises:
      Interrupted: a signal came while nothing within this context caught it.
    """
    with _compilations() as compiling_since:

        def leave(number: int, frame: object) -> None:
            if compiling_since():
                # Python's end would wait for the threads of the compiler.
                _end(signal.Signals(number), "")
            raise Interrupted(EXIT_CODES[signal.Signals(number)])

        with _caught_by(leave, compiling_since, lambda: ""):
            yield


@contextmanager
def _compilations() -> Iterator[Callable[[], float | None]]:
    """When the oldest of the compilations began that are not at their end, if any."""
    began: dict[int, list[float]] = {}  # by thread; a compilation may start another

    def starts(event: str, value: float | int, **details: object) -> None:
        if event == _COMPILATION:
            began.setdefault(threading.get_ident(), []).append(time.monotonic())

    def ends(event: str, duration_secs: float, **details: object) -> None:
        mine = began.get(threading.get_ident())
        if event == _COMPILATION and mine:  # one that began before us is not ours
            mine.pop()

    def oldest() -> float | None:
        # `list` copies under the interpreter's lock: other threads go on compiling.
        running = [times[0] for times in list(began.values()) if times]
        return min(running, default=None)

    jax.monitoring.register_scalar_listener(starts)
    jax.monitoring.register_event_duration_secs_listener(ends)
    try:
        yield oldest
    finally:
        jax.monitoring.unregister_scalar_listener(starts)
        jax.monitoring.unregister_event_duration_listener(ends)


@contextmanager
def _caught_by(
    handler: Callable[[int, object], None],
    compiling_since: Callable[[], float | None],
    last_words: Callable[[], str],
) -> Iterator[None]:
    """Handlers of both signals, and a thread that sees them as they arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    receiver.settimeout(0.5)

    def watch() -> None:
        first: tuple[signal.Signals, float] | None = None
        interrupted = 0
        while True:
            numbers = None
            with suppress(TimeoutError):
                numbers = receiver.recv(16)
            if numbers == b"":
                return
            for number in numbers or b"":
                if number in EXIT_CODES and first is None:
                    first = signal.Signals(number), time.monotonic()
                interrupted += number == signal.SIGINT
            if interrupted > 1:
                os._exit(EXIT_CODES[signal.SIGINT])
            since = compiling_since()
            if first and since:
                start = max(first[1], since)
                if time.monotonic() - start > COMPILER_GRACE:
                    _end(first[0], last_words())

    handlers = {number: signal.signal(number, handler) for number in EXIT_CODES}
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sender.close()
        thread.join()
        receiver.close()
        for number, handler_before in handlers.items():
            signal.signal(number, handler_before)


def _end(number: signal.Signals, last_words: str) -> None:
    # The main thread is inside the compiler: nothing that Python does at its end would
    # be reached. A progress display has hidden the cursor.
    show_cursor = "\x1b[?25h" if sys.stdout.isatty() else ""
    text = f"{show_cursor}\n{number.name}: ended while compiling. {last_words}\n"
    os.write(sys.stdout.fileno(), text.encode())
    os._exit(EXIT_CODES[number])
