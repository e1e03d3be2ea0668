"""Errors that a user can do something about: entry points print them, not a trace."""

import sys
from contextlib import suppress


class TrainingError(Exception):
    """Training cannot start or go on. The message says what would help."""


class DiskFullError(TrainingError):
    """Nothing more can be written."""


class CheckpointError(TrainingError):
    """Checkpoints cannot be used as asked."""


class DamagedError(Exception):
    """One step cannot be trusted; the one before may do."""


def tell(text: str) -> None:
    """A line about what went wrong, with which training goes on."""
    line = " ".join(text.split())
    # Who started the run may have closed what it writes to: there is nobody to tell.
    with suppress(OSError, ValueError):
        print(f"warning: {line}", file=sys.stderr, flush=True)
