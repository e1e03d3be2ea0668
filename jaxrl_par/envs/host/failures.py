"""How simulators fail: by errors, by ending the process, and while being closed."""

import threading
from collections.abc import Callable, Mapping
from typing import NoReturn


class SimulatorError(RuntimeError):
    """A simulator raised what is no error, such as `SystemExit`."""


def as_error(error: BaseException) -> BaseException:
    """The error itself, or one in place of what would end the process in silence.

    `sys.exit()` in a simulator would end a run with exit code 0, and no word. Handlers
    of signals run in the main thread only, whatever it does: there, Ctrl-C and
    subclasses of `SystemExit`, which are stops, remain what they are.
    """
    if isinstance(error, Exception):
        return error
    if threading.current_thread() is threading.main_thread():
        subclass = isinstance(error, SystemExit) and type(error) is not SystemExit
        if subclass or isinstance(error, KeyboardInterrupt):
            return error
    told = SimulatorError(
        f"a simulator raised {error!r}, which is no error: it may not end the process"
    )
    told.__cause__ = error
    for note in getattr(error, "__notes__", []):
        told.add_note(note)
    return told


def raise_from(error: BaseException, where: str) -> NoReturn:
    """Raises what a simulator raised, as an error, with a note that says where."""
    told = as_error(error)
    told.add_note(where)
    raise told


def close_all(closes: Mapping[str, Callable[[], object]]) -> None:
    """Calls all of them, by what they close, also where some fail.

    Raises:
      BaseException: what the first of them raised, as an error; notes say what was
        closed, and what others raised.
    """
    errors = []
    for name, close in closes.items():
        try:
            close()
        except BaseException as error:
            told = as_error(error)
            told.add_note(f"in close of {name}")
            errors.append((name, told))
    if not errors:
        return
    (_, first), *others = errors
    for name, error in others:
        first.add_note(f"close of {name} failed too: {type(error).__name__}: {error}")
    raise first
