"""Which signals end a process, and with which codes; how one is ended while it imports.

A module of its own that imports next to nothing: imports take seconds, in which no
other part of the package can hear.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_CODES = {
    signal.SIGTERM: 75,
    signal.SIGINT: 130,
    signal.SIGHUP: 129,
    signal.SIGUSR1: 75,
    signal.SIGUSR2: 75,
    signal.SIGXCPU: 75,
}
"""75 is EX_TEMPFAIL of sysexits.h: a scheduler may start the job again. Ctrl-C and a
terminal that closes have the codes that shells give them. SIGQUIT is left to end a
process as it is."""

LOST = 75
"""Of a process that ends because another one of its run was lost: all are to be started
again, from the last checkpoint."""


def heard(is_ours: Callable[[object], bool] = lambda _: False) -> list[signal.Signals]:
    """Signals that are the package's to handle. SIGTERM and Ctrl-C always; the others
    neither if they are ignored, as SIGHUP by nohup, nor if a program has a handler of
    its own, one of which `is_ours` does not hold."""

    def to_handle(number: signal.Signals) -> bool:
        now = signal.getsignal(number)
        always = number in (signal.SIGTERM, signal.SIGINT)
        return always or now == signal.SIG_DFL or is_ours(now)

    return [number for number in EXIT_CODES if to_handle(number)]


def end_at_once(number: int, frame: object) -> None:
    """A handler for as long as there is nothing to be saved.

    It does not raise: libraries that are interrupted in their imports turn that into
    errors of their own, as NumPy does.
    """
    os._exit(EXIT_CODES[signal.Signals(number)])


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Signals end the process with their codes until something else handles them.
    Outside the main thread, where Python allows no handlers, they do as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end_at_once) for number in heard()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
