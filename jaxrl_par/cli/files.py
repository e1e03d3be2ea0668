"""Configs in files: a run's `config.json`, or YAML that has some of its fields.

Everything that is wrong with a file is found before anything is refused.
"""

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import tyro

from jaxrl_par.cli.fields import Config, fields_of, fits, must_be, options
from jaxrl_par.errors import nearest, problems
from jaxrl_par.training.failures import TrainingError
from jaxrl_par.training.files import parse_json
from jaxrl_par.training.provenance import KEY, experiment_name


class ConfigError(TrainingError):
    """A config is wrong. `problems` has everything that is."""

    def __init__(self, where: str, problems: list[str]):
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{count} with {where}:{lines}")
        self.problems = tuple(problems)


def load(path: Path, config: type[Config]) -> Config:
    """The config that a run wrote to a file, with all its fields.

    Raises:
      ConfigError: the file is none, or a key or value is none of the config's.
    """
    wrong: list[str] = []
    values = _values(Path(path), wrong)
    if values is None and wrong:
        raise ConfigError(str(path), wrong)
    loaded = _part(values, config, "", wrong, base=None)
    if wrong := wrong or problems(loaded, unnamed=tyro.conf.OmitArgPrefixes):
        raise ConfigError(str(path), wrong)
    assert isinstance(loaded, config)
    return loaded


def over(base: Config, path: Path, wrong: list[str]) -> Config:
    """The config, but for the fields that the file has.

    Args:
      wrong: takes what is wrong with the file. What is out of range is not looked at.
    """
    values = _values(path, wrong)
    if values is None and wrong:
        return base
    told = values.get(KEY) if isinstance(values, dict) else None
    there = told.get("experiment") if isinstance(told, dict) else None
    here = experiment_name(type(base))
    if isinstance(there, str) and _stem(there) != _stem(here):
        wrong.append(f"it is of the experiment {there}, and this is {here}")
        return base
    return _part(values, type(base), "", wrong, base)


def _stem(experiment: str) -> str:
    """The same for a script that is started and one that is imported."""
    return experiment.removesuffix(".py").rpartition(".")[2]


def _values(path: Path, wrong: list[str]) -> Any:
    """What the file says; None, and a reason in `wrong`, if nothing can be read.

    Without an end of the name, as of a pipe, it is YAML, in which JSON is written, too.
    """
    if path.suffix not in (".json", ".yaml", ".yml", ""):
        wrong.append("its name must end in .json, .yaml or .yml")
        return None
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        wrong.append(f"it cannot be read: {error.strerror}")
        return None
    except UnicodeDecodeError:
        wrong.append("it is no text in UTF-8")
        return None
    try:
        return _parsed(text, path.suffix == ".json", wrong)
    except RecursionError:
        wrong.append("it is nested too deeply")
        return None


def _parsed(text: str, is_json: bool, wrong: list[str]) -> Any:
    if not is_json:
        from jaxrl_par.cli import yaml12

        return yaml12.loads(text, wrong)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        repeated = {key: None for key in keys if keys.count(key) > 1}
        wrong.extend(f"{key} is there twice" for key in repeated)
        return dict(pairs)

    try:
        return parse_json(text, once)
    except ValueError as error:
        wrong.append(f"it is not JSON: {error}")
        return None


def _part(values: Any, hint: type, name: str, wrong: list[str], base: Any) -> Any:
    """A config from an object; without a base, all its fields must be there."""
    if not isinstance(values, dict):
        wrong.append(f"{name or 'the file'} must be an object, got {_json(values)}")
        return base
    prefix = f"{name}." if name else ""
    known = {field.name: field for field in fields_of(hint)}
    others = values.keys() - known.keys() - ({KEY} if not name else set())
    wrong += [_unknown(x, prefix, hint) for x in values if x in others]
    given, so_far = {}, len(wrong)
    for name, field in known.items():
        default = getattr(base, name, None)
        read = _part if field.is_part else _value
        if name in values:
            given[name] = read(values[name], field.hint, prefix + name, wrong, default)
        elif base is not None:
            given[name] = default
        else:
            wrong.append(f"{prefix}{name} is missing")
    return None if base is None and len(wrong) > so_far else hint(**given)


def _value(value: Any, hint: Any, name: str, wrong: list[str], base: Any) -> Any:
    """The value as the type, or `base` where it does not fit."""
    if isinstance(value, list):
        for option in _alternatives(hint):
            if get_origin(option) is tuple:
                return _tuple(value, option, name, wrong, base)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if not fits(value, hint):
        wrong.append(must_be(name, hint, _json(value)))
        return base
    return float(value) if hint is float and type(value) is int else value


def _tuple(value: list, hint: Any, name: str, wrong: list[str], base: Any) -> Any:
    *kinds, last = get_args(hint)
    if last is Ellipsis:
        kinds = kinds * len(value)
    else:
        kinds.append(last)
    if len(kinds) != len(value):
        wrong.append(f"{name} must have {len(kinds)} entries, got {_json(value)}")
        return base
    so_far, items = len(wrong), zip(value, kinds, strict=True)
    read = tuple(_value(x, kind, name, wrong, None) for x, kind in items)
    return base if len(wrong) > so_far else read


def _alternatives(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, UnionType):
        for option in get_args(hint):
            yield from _alternatives(option)
    else:
        yield hint


def _unknown(key: Any, prefix: str, hint: type) -> str:
    """The sentence on a key that the config has no field for."""
    inner = [dotted for *_, dotted in options(hint)]
    if key in inner:
        part, _, field = key.rpartition(".")
        return f"{prefix}{key} must be written as {field} within {prefix}{part}"
    known = [field.name for field in fields_of(hint)] + inner
    allowed = [prefix + x for x in known]
    return f"unknown field {prefix + str(key)!r}{nearest(prefix + str(key), allowed)}"


def _json(value: Any) -> str:
    """As the file would say it, but for strings, in which quotes are Python's."""
    return "null" if value is None else repr(value)
