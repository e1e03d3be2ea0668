"""When a compilation goes on, which Python waits for and no signal disturbs."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax

_COMPILATION = "/jax/core/compile/backend_compile_duration"

Since = Callable[[], float | None]
"""When something began, in `time.monotonic`, that is not at its end; None without."""


@contextmanager
def compilations() -> Iterator[Since]:
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
