"""What the source of a library says, read without importing it: that may start JAX."""

import ast
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

_PARSING = Lock()
"""Python 3.11 does not parse in two threads at once, and each actor asks."""


def parsed(path: Path) -> ast.Module:
    """The syntax of a file."""
    with _PARSING:
        return ast.parse(path.read_text("utf-8"))


def folder(package: str) -> Path | None:
    """Where a package at top level lies; None where it is not installed."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent
