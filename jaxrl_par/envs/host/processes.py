"""Vector environments of Gymnasium whose simulators have a process each."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any

from jaxrl_par.envs.host.apart import SIGNALS, made, work
from jaxrl_par.envs.host.failures import raise_from

_GRACE = 1.0
"""Seconds that a worker process has to end by itself, then after SIGTERM."""
_MAIN = threading.Lock()


def in_processes(make_env: Callable[[], Any], num_envs: int, name: str) -> Any:
    """Gymnasium's `AsyncVectorEnv`, of environments whose results are admitted where
    they are stepped. One more is made here, and closed, for its spaces.

    Raises:
      Exception: what making one of them raised, as an error that says which. No process
        is left.
    """
    from gymnasium.vector import AsyncVectorEnv

    makers: Any = [partial(made, make_env, index, name) for index in range(num_envs)]
    vector_env = AsyncVectorEnv.__new__(AsyncVectorEnv)
    try:
        # Not fork, which would copy the threads' locks of jax but not the threads.
        with _without_main_module(), _deaf_children():
            vector_env.__init__(makers, context="spawn", worker=work)
    except BaseException as error:
        place = f"in make of {name}"
        if hasattr(vector_env, "processes"):
            place += exits(vector_env)
            end(vector_env)
        raise_from(error, place)
    return vector_env


@contextmanager
def _without_main_module():
    """Hides the script from `multiprocessing`, whose workers would import it again.

    It imports jax, for seconds and hundreds of megabytes in each worker; and without
    `if __name__ == "__main__"` it would start the experiment again.
    """
    with _MAIN:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextmanager
def _deaf_children():
    """Processes that start meanwhile do not hear the signals that training answers.

    Schedulers and terminals signal all processes of a group: were simulators to end
    first, nothing would be left to save.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        # The first process brings another one, and unblocks signals after it.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exits(vector_env: Any) -> str:
    """Which worker processes ended, if any did."""
    processes = getattr(vector_env.unwrapped, "processes", None)
    if processes is None:
        return ""
    # The pipe breaks a little before the process has ended; on a busy machine, seconds.
    ended = wait([process.sentinel for process in processes], timeout=5 * _GRACE)
    for process in processes:
        if process.sentinel in ended:
            process.join(_GRACE)
    found = enumerate(process.exitcode for process in processes)
    codes = {i: code for i, code in found if code is not None}
    told = "; processes of environments that ended, with exit code"
    return f"{told}: {codes}" if codes else ""


def end(vector_env: Any) -> None:
    """Asks the workers to end, then makes them.

    `AsyncVectorEnv.close` waits without limit for workers that hang in `close` or
    ignore SIGTERM, and raises before it ends anything if one has died.
    """
    for pipe in vector_env.parent_pipes:
        with suppress(OSError, AttributeError):
            pipe.send(("close", None))
    processes = vector_env.processes
    for stop in (lambda process: None, lambda p: p.terminate(), lambda p: p.kill()):
        for process in processes:
            if process.is_alive():
                stop(process)
        deadline = time.monotonic() + _GRACE
        for process in processes:
            process.join(max(deadline - time.monotonic(), 0.0))
    for pipe in vector_env.parent_pipes:
        if pipe is not None:
            pipe.close()
    # What its __del__ looks at.
    vector_env.closed = True
