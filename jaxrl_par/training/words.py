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
    return f"--{setting.replace('_', '-')}" if _at_command_line else setting


def switch(setting: str) -> str:
    """How a user turns a setting on: `--resume`, or in Python `resume=True`."""
    return option(setting) if _at_command_line else f"{setting}=True"
