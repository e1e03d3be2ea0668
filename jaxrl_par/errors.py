"""What every part says when it refuses a name, a number or a whole config.

A config is a frozen dataclass, whose fields may be such dataclasses. It may define
`problems() -> list[str]`, what is out of range, each starting with the field's name:
"unroll_length must be at least 1, got 0". The command line reports them all at once,
and whoever takes a config refuses it by the same sentences.

Numbers that are None or JAX arrays are never out of range: None asks for nothing, and a
number that is traced, as a population's hyperparameters are, has no value yet.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from operator import gt, lt
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import jax


class RefusedError(ValueError):
    """What was asked for is not possible, and the message says it all: a command line
    shows it without a trace."""


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> RefusedError:
    """The error for a name that is not among those allowed, for the caller to raise."""
    allowed = sorted(allowed)
    hint = nearest(name, allowed)
    return RefusedError(f"unknown {kind} {name!r}{hint} Known: {', '.join(allowed)}")


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The end of a sentence that refuses a name: which one was perhaps meant."""
    lowered = {candidate.lower(): candidate for candidate in allowed}
    close = get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.4)
    return f"; did you mean {lowered[close[0]]!r}?" if close else ""


def refuse(*configs: Any, **counts: int | None) -> None:
    """Accepts configs that have no problems, with counts of 1 or more.

    Raises:
      RefusedError: there is a problem, or a count below 1; it lists all of them.
    """
    found = [line for config in configs for line in problems(config)]
    others = {name: x for name, x in counts.items() if not _fits(x, int | None)}
    found += [f"{name} must be int, got {x!r:.60}" for name, x in others.items()]
    lowest = {name: 1 for name in counts if name not in others}
    refuse_any(found + at_least(counts, **lowest))


def refuse_any(found: Iterable[str]) -> None:
    """Accepts an empty list of problems.

    Raises:
      RefusedError: there is one; it lists all of them.
    """
    if lines := list(found):
        raise RefusedError("; ".join(lines))


def problems(config: Any, unnamed: Any = None, prefix: str = "") -> list[str]:
    """What `problems()` of a config and of its parts report, by dotted field.

    It is not asked where a value is of another type than its field.

    Args:
      unnamed: the annotation of parts whose fields are spoken of as the whole's own.
    """
    if not is_dataclass(config) or isinstance(config, type):
        return [f"a config is a dataclass, such as A2CConfig(), got {told(config)}"]
    asked = getattr(config, "problems", list)
    found = [prefix + line for line in _other_types(config) or asked()]
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        part = getattr(config, field.name)
        if is_dataclass(part):
            flat = unnamed in getattr(hints[field.name], "__metadata__", ())
            found += problems(part, unnamed, "" if flat else f"{prefix}{field.name}.")
    return found


def lacking(right: str, *needed: str, **given: Any) -> list[str]:
    """A line for each argument that has not all attributes of the right kind."""
    return [
        f"{name} must be {right}, got {told(value)}"
        for name, value in given.items()
        if not all(hasattr(value, attribute) for attribute in needed)
    ]


def told(value: Any) -> str:
    """What was handed over, in a few words."""
    return f"{type(value).__name__}: {str(value).partition(chr(10))[0]:.60}"


def at_least(config: Any, **lowest: int | float | str) -> list[str]:
    """A line for each number that is lower than that, or than the one of that name.

    Here and in the functions below, `config` has the numbers as fields or, if it is a
    dict, as items. A tuple of numbers is checked one by one.
    """
    found = []
    for name, low in lowest.items():
        bound = _get(config, low) if isinstance(low, str) else low
        told = f"{low} = {bound}" if isinstance(low, str) else f"{bound}"
        found += [
            f"{label} must be at least {told}, got {value}"
            for label, value in _known(config, name)
            if not isinstance(bound, jax.Array) and not value >= bound
        ]
    return found


def above(config: Any, **bounds: int | float) -> list[str]:
    """A line for each number that is not above that."""
    return _refused(config, bounds, gt, "above {}".format)


def below(config: Any, **bounds: int | float) -> list[str]:
    """A line for each number that is not below that."""
    return _refused(config, bounds, lt, "below {}".format)


def not_between(config: Any, **bounds: tuple[int | float, int | float]) -> list[str]:
    """A line for each number that is outside its closed interval."""
    return _refused(
        config,
        bounds,
        lambda value, ends: ends[0] <= value <= ends[1],
        lambda ends: "in [{:g}, {:g}]".format(*ends),
    )


def _refused(
    config: Any,
    bounds: dict[str, Any],
    holds: Callable[[Any, Any], bool],
    told: Callable[[Any], str],
) -> list[str]:
    return [
        f"{label} must be {told(bound)}, got {value}"
        for name, bound in bounds.items()
        for label, value in _known(config, name)
        if not holds(value, bound)
    ]


def not_chosen(config: Any) -> list[str]:
    """A line for each field annotated as a `Literal` that is none of its choices."""
    found = []
    for name, hint in get_type_hints(type(config)).items():
        choices, value = get_args(hint), getattr(config, name)
        if "Literal" in str(hint) and value not in choices:
            found.append(f"{name}: {unknown_name('choice', value, map(str, choices))}")
    return found


def _other_types(config: Any) -> list[str]:
    hints = get_type_hints(type(config))
    return [
        f"{field.name} must be {_spelled(hints[field.name])}, got {value!r:.60}"
        for field in fields(config)
        if not _fits(value := getattr(config, field.name), hints[field.name])
    ]


def _fits(value: Any, hint: Any) -> bool:
    """False for what is certainly of another type. Choices are for `not_chosen`."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    is_array = isinstance(value, jax.Array)
    if get_origin(hint) is tuple:
        items = get_args(hint)[:1]
        listed = isinstance(value, tuple | list)
        each = listed and all(_fits(x, item) for x in value for item in items)
        return is_array or each
    if hint in (int, float):
        kind = Integral if hint is int else Real
        number = isinstance(value, kind) and not isinstance(value, bool)
        return is_array or bool(number and value == value)  # NaN is none
    return hint not in (bool, str, NoneType) or isinstance(value, hint)


def _spelled(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_spelled, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list of {_spelled(get_args(hint)[0])}"
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return "None" if hint is NoneType else getattr(hint, "__name__", str(hint))


def _known(config: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(name, value) of the numbers there that can be compared."""
    value = _get(config, name)
    numbers = {name: value}
    if isinstance(value, tuple | list):
        numbers = {f"{name}[{i}]": x for i, x in enumerate(value)}
    for label, x in numbers.items():
        if x is not None and not isinstance(x, jax.Array):
            yield label, x


def _get(config: Any, name: str) -> Any:
    return config[name] if isinstance(config, dict) else getattr(config, name)
