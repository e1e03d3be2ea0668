"""Words of whom a sentence is for: options at a command line, arguments in Python."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_at_command_line = False  # of the process: any thread may have something to say


@contextmanager
def command_line() -> Iterator[None]:
    """Within it, users have typed options, and a warning is a line without a path."""
    global _at_command_line
    before, _at_command_line = _at_command_line, True
    shown, warnings.showwarning = warnings.showwarning, _show
    try:
        yield
    finally:
        _at_command_line, warnings.showwarning = before, shown


def _show(message: Warning | str, *where: object, **more: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def option(setting: str) -> str:
    """How a user calls a setting: `--name`, or in Python `name`."""
    return way(f"--{setting.replace('_', '-')}", setting)


def way(typed: str, called: str) -> str:
    """What a user can do: at a command line the one, in Python the other."""
    return typed if _at_command_line else called


def switch(setting: str) -> str:
    """How a user turns a setting on: `--resume`, or in Python `resume=True`."""
    return way(option(setting), f"{setting}=True")
