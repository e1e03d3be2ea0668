"""Settings from the command line or a file, refused as a whole if any is wrong.

What a config is, and what is wrong with one, is in `errors`. All problems of all parts
are reported at once, before a device is used: nothing is repaired one error at a time.
"""

import contextlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import tyro

from jaxrl_par.errors import nearest, problems, unknown_name
from jaxrl_par.training import provenance
from jaxrl_par.training.failures import TrainingError

Config = TypeVar("Config")
Flat = Annotated[Config, tyro.conf.OmitArgPrefixes]
"""A part, however deep, whose options have no prefix: `--resume`."""


class ConfigError(TrainingError):
    """A config is wrong. `problems` has everything that is."""

    def __init__(self, where: str, problems: Sequence[str]):
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{count} with {where}:{lines}")
        self.problems = tuple(problems)


def parse(config: type[Config], argv: Sequence[str] | None = None) -> Config:
    """The config that the command line asks for.

    Args:
      argv: by default that of the process.

    Raises:
      SystemExit: code 2 after all that is wrong was printed; 0 after `--help`.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(argv):
        return tyro.cli(config, args=argv)
    parsed, wrong = _parse(config, argv), []
    if parsed is None:
        parsed, wrong = _parse_each(config, argv)
    if wrong := wrong + problems(parsed, unnamed=tyro.conf.OmitArgPrefixes):
        error = ConfigError("the options", wrong)
        print(f"error: {error}\n--help lists all options", file=sys.stderr)
        raise SystemExit(2)
    return parsed


def load(path: Path, config: type[Config]) -> Config:
    """The config that a run wrote to a file.

    Raises:
      ConfigError: the file is no JSON, or a key or value is none of the config's.
    """
    wrong: list[str] = []
    try:
        values = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ConfigError(str(path), [f"it is not JSON: {error}"]) from error
    if isinstance(values, dict):
        values.pop(provenance.KEY, None)
    loaded = _from_json(values, config, "", wrong)
    if wrong := wrong or problems(loaded, unnamed=tyro.conf.OmitArgPrefixes):
        raise ConfigError(str(path), wrong)
    return loaded


def _parse(config: type[Config], argv: Sequence[str]) -> Config | None:
    """What tyro makes of the arguments, None if it refuses them."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(config, args=argv)
    except SystemExit:
        return None


def _parse_each(config: type[Config], argv: Sequence[str]) -> tuple[Config, list[str]]:
    """Each option by itself, since a parser stops at the first that is wrong.

    The config has the options that are right, so that their values can be checked too.
    """
    known = dict(_options(config, ""))
    right: list[str] = []
    wrong: list[str] = []
    for option in _split(argv):
        name, *inline = option[0].split("=", 1)
        hint = known.get(name.replace("_", "-"))
        given = " ".join(inline + option[1:]) or "nothing"
        if not name.startswith("--"):
            wrong.append(f"{' '.join(option)!r} belongs to no option")
        elif hint is None:
            unknown = str(unknown_name("option", name, known))
            wrong.append(unknown.partition(" Known: ")[0])  # `--help` lists them better
        elif _parse(config, option) is not None:
            right += option
        elif hint is bool:
            wrong.append(f"{name} takes no value, got {given}")
        else:
            wrong.append(_must_be(name, hint, given))
    return tyro.cli(config, args=right), wrong


def _split(argv: Sequence[str]) -> list[list[str]]:
    """Each option with its values. What comes before any option is one, too."""
    split: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not split:
            split.append([])
        split[-1].append(word)
    return split


def _options(config: type, prefix: str) -> Iterator[tuple[str, Any]]:
    """Every option of the command line, such as --a2c.entropy-cost, and its type."""
    for name, hint, flat in _hints(config):
        option = prefix + name.replace("_", "-")
        if isinstance(hint, type) and is_dataclass(hint):
            yield from _options(hint, "" if flat else f"{option}.")
        else:
            yield f"--{option}", hint
        if hint is bool:
            yield f"--{prefix}no-{name.replace('_', '-')}", hint


def _hints(config: type) -> Iterator[tuple[str, Any, bool]]:
    """(name, type, has no prefix) of each field."""
    hints = get_type_hints(config, include_extras=True)
    for field in fields(config):
        hint, flat = hints[field.name], False
        if get_origin(hint) is Annotated:
            flat = tyro.conf.OmitArgPrefixes in hint.__metadata__
            hint = hint.__origin__
        yield field.name, hint, flat


def _from_json(value: Any, hint: Any, name: str, wrong: list[str]) -> Any:
    """The value as the type; what does not fit it is added to `wrong`."""
    if is_dataclass(hint) and isinstance(hint, type):
        return _dataclass_from_json(value, hint, name, wrong)
    if get_origin(hint) is tuple and isinstance(value, list):
        item = get_args(hint)[0]
        return tuple(_from_json(x, item, name, wrong) for x in value)
    if not _fits(value, hint):
        wrong.append(_must_be(name, hint, repr(value)))
    return float(value) if hint is float and type(value) is int else value


def _dataclass_from_json(value: Any, hint: type, name: str, wrong: list[str]) -> Any:
    if not isinstance(value, dict):
        wrong.append(f"{name or 'the file'} must be an object, got {value!r}")
        return None
    hints = {field: kind for field, kind, _ in _hints(hint)}
    prefix = f"{name}." if name else ""
    known = [prefix + field for field in hints]
    for key in value.keys() - hints.keys():
        wrong.append(str(unknown_name("field", prefix + key, known)))
    given = {
        field: _from_json(value[field], kind, prefix + field, wrong)
        for field, kind in hints.items()
        if field in value
    }
    wrong += [f"{prefix}{field} is missing" for field in hints if field not in given]
    return None if wrong else hint(**given)


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint) and type(value) in map(type, get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint  # not isinstance: True is no integer here


def _must_be(name: str, hint: Any, given: str) -> str:
    meant = nearest(given, _choices(hint))
    return f"{name} must be {_spelled(hint)}, got {given}{meant}"


def _choices(hint: Any) -> list[str]:
    """Words that it allows, no other words being allowed."""
    if get_origin(hint) is Literal:
        return [str(choice) for choice in get_args(hint)]
    if get_origin(hint) in (Union, UnionType):
        return [x for option in get_args(hint) for x in _choices(option)]
    return []


def _spelled(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_spelled, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list of {_spelled(get_args(hint)[0])}"
    return "null" if hint is NoneType else getattr(hint, "__name__", str(hint))
