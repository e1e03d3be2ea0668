"""Names and modules that are imported when they are first used.

So that a command, and the help of one, need not import all that the package has.
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def lazily(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package that only type checkers import from.

        if TYPE_CHECKING:
            from package.module import name
        __getattr__, __dir__ = lazily(__name__)

    Modules of the package are imported in the same way. None may be called as one of
    the names: it would take its place.
    """
    module = sys.modules[package]
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    guarded = [x for node in tree.body if isinstance(node, ast.If) for x in node.body]
    where = {
        alias.name: node.module
        for node in guarded
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }

    def get(name: str) -> Any:
        if name in where:
            value = getattr(import_module(where[name]), name)
            setattr(module, name, value)
            return value
        if not name.startswith("_") and find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted({*vars(module), *where})


class late:  # noqa: N801, it stands for a module
    """A module that is imported when something of it is first used."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
