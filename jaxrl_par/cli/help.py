"""What `--help` prints: every option, with the string under its field.

The parser's own would read a source line by line for each of its fields, which takes
longer than all else that the help needs but for imports, and keeps the ends of lines.
"""

import ast
import inspect
import shutil
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jaxrl_par.cli.fields import fields_of

_WIDEST = 88
_WORDS = {int: "INT", float: "FLOAT", str: "TEXT", NoneType: "None"}


def help_of(config: Any, program: str, about: str) -> str:
    """All options of a config, with its values as defaults.

    Args:
      about: paragraphs for what is no field.
    """
    paragraphs = [*(type(config).__doc__ or "").split("\n\n"), *about.split("\n\n")]
    said = [_wrapped(x, "") for x in paragraphs if x.strip()]
    first = "options:\n  -h, --help\n      Show this, and end."
    return "\n\n".join(
        [f"usage: {program} [OPTIONS]", *said, first + _section(config, "", "")]
    )


def _section(config: Any, prefix: str, title: str) -> str:
    """The options of a config, and below them those of its parts."""
    own, parts = "", ""
    for field in fields_of(type(config)):
        value = getattr(config, field.name)
        about = _documented(type(config), field.name)
        name = prefix + field.name.replace("_", "-")
        if field.is_part:
            told = about or (field.hint.__doc__ or "").partition("\n\n")[0]
            title_of_part = f"\n\n{_wrapped(f'{name}: {told}', '')}"
            inner = "" if field.flat else f"{name}."
            parts += _section(value, inner, title_of_part)
        else:
            no = f"{prefix}no-{field.name.replace('_', '-')}"
            given = f", --{no}" if field.hint is bool else f" {_spelled(field.hint)}"
            default = f"(default: {_shown(value)})"
            own += f"\n  --{name}{given}\n{_wrapped(f'{about} {default}', '      ')}"
    return f"{title}{own}{parts}"


def _wrapped(text: str, indent: str) -> str:
    width = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    words = " ".join(text.split())
    return textwrap.fill(
        *(words, max(width, 40)),
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _spelled(hint: Any) -> str:
    """The values that an option takes."""
    if get_origin(hint) is Literal:
        return f"{{{','.join(map(str, get_args(hint)))}}}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_spelled, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"[{_spelled(get_args(hint)[0])} ...]"
    return _WORDS.get(hint) or getattr(hint, "__name__", str(hint)).upper()


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return str(value)


def _documented(config: type, name: str) -> str:
    """The string under the field, in the nearest class that has one."""
    documented = (_strings(x).get(name, "") for x in config.__mro__)
    return next(filter(None, documented), "")


@cache
def _strings(config: type) -> dict[str, str]:
    """The strings under the fields that the class itself declares."""
    if "__annotations__" not in vars(config):
        return {}
    try:
        source = inspect.getsource(config)
    except (OSError, TypeError):  # made by a function, or typed into a session
        return {}
    (made,) = ast.parse(textwrap.dedent(source)).body
    return dict(_under_fields(made))


def _under_fields(made: Any) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(made.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            value = below.value if isinstance(below, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield field.target.id, value.value
