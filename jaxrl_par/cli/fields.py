"""Fields of a config: names, types, and a sentence for a value that does not fit."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import tyro

from jaxrl_par.errors import nearest, spelled

Config = TypeVar("Config")
Flat = Annotated[Config, tyro.conf.OmitArgPrefixes]
"""A part, however deep, whose options have no prefix: `--resume`."""


class Field(NamedTuple):
    """One of a config's own."""

    name: str
    hint: Any
    flat: bool
    """It is a part whose options have no prefix."""

    @property
    def is_part(self) -> bool:
        """It is a config itself."""
        return isinstance(self.hint, type) and is_dataclass(self.hint)


def fields_of(config: type) -> Iterator[Field]:
    """Each field, with its type."""
    hints = get_type_hints(config, include_extras=True)
    for field in fields(config):
        hint, flat = hints[field.name], False
        if get_origin(hint) is Annotated:
            flat = tyro.conf.OmitArgPrefixes in hint.__metadata__
            hint = hint.__origin__
        yield Field(field.name, hint, flat)


def options(config: type, prefix: str = "", path: str = "") -> Iterator[tuple]:
    """(option, type, dotted name) of all fields: ("--a2c.n-step", int, "a2c.n_step").

    Yes and no are two options of one field.
    """
    for field in fields_of(config):
        name, hint = field.name, field.hint
        option, dotted = prefix + name.replace("_", "-"), path + name
        if field.is_part:
            yield from options(hint, "" if field.flat else f"{option}.", f"{dotted}.")
            continue
        yield f"--{option}", hint, dotted
        if hint is bool:
            yield f"--{prefix}no-{name.replace('_', '-')}", hint, dotted


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from a file is of that type."""
    if get_origin(hint) is Literal:
        return value in get_args(hint) and type(value) in map(type, get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return any(fits(value, option) for option in get_args(hint))
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint  # not isinstance: True is no integer here


def must_be(name: str, hint: Any, given: str) -> str:
    """The sentence that refuses a value."""
    meant = nearest(given.strip("'"), _choices(hint))
    told = given if len(given) <= 60 else f"{given[:57]}..."
    return f"{name} must be {spelled(hint, 'null')}, got {told}{meant}"


def _choices(hint: Any) -> list[str]:
    """Words that it allows, no other words being allowed."""
    if get_origin(hint) is Literal:
        return [str(choice) for choice in get_args(hint)]
    if get_origin(hint) in (Union, UnionType):
        return [x for option in get_args(hint) for x in _choices(option)]
    return []
