"""SIGTERM and Ctrl-C as requests that training answers between two chunks."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}
"""75 is EX_TEMPFAIL of sysexits.h: a scheduler may start the job again."""


class Interrupted(SystemExit):
    """Training was asked to stop, and did after saving. A script exits with `code`."""


@contextmanager
def interrupts() -> Iterator[Callable[[], signal.Signals | None]]:
    """Catches both signals; the function says which one came first, if any.

    A second Ctrl-C ends the process at once, also within a compiled program. Outside
    the main thread, where Python allows no handlers, signals do what they did before.
    """
    received: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def remember(number: int, frame: object) -> None:
        del frame
        received.append(signal.Signals(number))

    before = {number: signal.signal(number, remember) for number in EXIT_CODES}
    try:
        with _second_interrupt_exits():
            yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _second_interrupt_exits() -> Iterator[None]:
    """Watches signals as they arrive.

    Python runs handlers between two of its own instructions, that is after a chunk. The
    system writes to this socket at once.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)

    def watch() -> None:
        count = 0
        while numbers := receiver.recv(16):
            count += numbers.count(signal.SIGINT)
            if count > 1:
                os._exit(EXIT_CODES[signal.SIGINT])

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
