"""What every part says when it refuses a name, a number or a whole config.

A config is a frozen dataclass, whose fields may be such dataclasses. It may define
`problems() -> list[str]`, what is out of range, each starting with the field's name:
"unroll_length must be at least 1, got 0". The command line reports them all at once,
and whoever takes a config refuses it by the same sentences.

Numbers that are None or JAX arrays are never out of range: None asks for nothing, and a
number that is traced, as a population's hyperparameters are, has no value yet.
"""

import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from operator import gt, le, lt
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

LARGEST_SEED = 2**32 - 1
"""JAX leaves out higher bits of a seed: 0 and 2**32 would be the same."""

_LARGEST = 2**31 - 1  # of int32, in which programs count
# Counted otherwise: by JAX's seeds, and in two int32, of which one counts millions.
_LARGER = {"seed": LARGEST_SEED, "total_steps": 10**15}
_LARGEST_FLOAT = 3.4028234663852886e38  # of float32

ReadIf = Mapping[str, tuple[str, tuple[Any, ...]]]
"""By field that is not always read: the other field that decides, and for which of its
values. `read_if`, a class variable of a config."""


class RefusedError(ValueError):
    """What was asked for is not possible, and the message says it all: a command line
    shows it without a trace."""


def unknown_name(kind: str, name: Any, allowed: Iterable[str]) -> RefusedError:
    """The error for a name that is not among those allowed, for the caller to raise."""
    allowed = sorted(allowed)
    hint = nearest(name, allowed) or "."
    return RefusedError(f"unknown {kind} {name!r}{hint} Known: {', '.join(allowed)}")


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The end of a sentence that refuses a name: which one was perhaps meant.

    One with few other letters, or that has the name as its first or last words:
    "--gamma" for "--a2c.gamma". It is empty where none is near.
    """
    lowered = {candidate.lower(): candidate for candidate in allowed}
    given = str(name).lower()
    close = get_close_matches(given, lowered, n=1, cutoff=0.75)
    words = re.escape(given.lstrip("-"))
    if words and not close:
        part = re.compile(rf"-*{words}[-_./].*|.*[-_./:]{words}")
        close = [x for x in sorted(lowered, key=len) if part.fullmatch(x)]
    return f"; did you mean {lowered[close[0]]!r}?" if close else ""


def unread(config: Any, name: str) -> str:
    """What a field is for, if that is not there; empty if the field is read.

    Args:
      name: dotted, from this config on.
    """
    field, _, rest = name.partition(".")
    other, values = getattr(config, "read_if", {}).get(field, ("", ()))
    if other and getattr(config, other) not in values:
        return f"is for {other} = {either(values)}, not {getattr(config, other)}"
    return unread(getattr(config, field), rest) if rest else ""


def either(names: Iterable[Any]) -> str:
    """The names as words: a, b or c."""
    *first, last = map(str, names)
    return f"{', '.join(first)} or {last}" if first else last


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
    of_parts = []
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        part = getattr(config, field.name)
        if is_dataclass(part):
            flat = unnamed in getattr(hints[field.name], "__metadata__", ())
            of_parts += problems(
                part, unnamed, "" if flat else f"{prefix}{field.name}."
            )
    reported = _other_types(config)
    if not reported:  # else a config cannot be asked, which compares its numbers
        reported = _asked(config, sure=not of_parts)
    names = {line.split(" ", 1)[0].rstrip(":") for line in reported}
    reported += [line for name, line in _out_of_reach(config) if name not in names]
    return [prefix + line for line in reported] + of_parts


def _asked(config: Any, *, sure: bool) -> list[str]:
    """What the config itself reports.

    Args:
      sure: its parts are right. Where they are not, it may divide by a count of 0, and
        is asked again when they are.
    """
    try:
        return getattr(config, "problems", list)()
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        if sure:
            raise
        return []


def same_text(keys: Iterable[Any], what: str) -> list[str]:
    """A line for each text that several keys have, such as 1 and "1"."""
    by_text: dict[str, list[str]] = {}
    for key in keys:
        by_text.setdefault(str(key), []).append(repr(key))
    return [
        f"{what} must have names of their own, got {' and '.join(same)}"
        for same in by_text.values()
        if len(same) > 1
    ]


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
            f"{label} must be at least {told}, got {_shown(value)}"
            for label, value in _known(config, name)
            if not _is_array(bound) and not value >= bound
        ]
    return found


def at_most(config: Any, **highest: int | float) -> list[str]:
    """A line for each number that is higher than that."""
    return _refused(config, highest, le, "at most {}".format)


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
        lambda ends: "in [{}, {}]".format(*ends),
    )


def _refused(
    config: Any,
    bounds: dict[str, Any],
    holds: Callable[[Any, Any], bool],
    told: Callable[[Any], str],
) -> list[str]:
    return [
        f"{label} must be {told(bound)}, got {_shown(value)}"
        for name, bound in bounds.items()
        for label, value in _known(config, name)
        if not holds(value, bound)
    ]


def not_a_seed(**seeds: Any) -> list[str]:
    """A line for each that is no whole number from 0 to `LARGEST_SEED`."""
    told = f"a whole number in [0, {LARGEST_SEED}]"
    return [
        f"{label} must be {told}, got {_shown(value)}"
        for name in seeds
        for label, value in _known(seeds, name)
        if not _fits(value, int) or not 0 <= value <= LARGEST_SEED
    ]


def not_finite(**numbers: Any) -> list[str]:
    """A line for each that is no finite float32. What is traced has no value yet."""
    return [
        f"{name} must be a finite number, got {x!r:.60}"
        for name, x in numbers.items()
        if not _is_array(x) and not (_fits(x, float) and abs(x) <= _LARGEST_FLOAT)
    ]


def not_chosen(config: Any) -> list[str]:
    """A line for each field annotated as a `Literal` that is none of its choices."""
    found = []
    hints = get_type_hints(type(config))
    for name in (field.name for field in fields(config)):
        value, hint = getattr(config, name), hints[name]
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        choices = [x for y in options if get_origin(y) is Literal for x in get_args(y)]
        nothing = value is None and NoneType in options
        if choices and value not in choices and not nothing:
            found.append(f"{name}: {unknown_name('choice', value, map(str, choices))}")
    return found


def _out_of_reach(config: Any) -> Iterator[tuple[str, str]]:
    """(name, line) of numbers that no program holds.

    A config may name fields in `may_be_infinite`, where that says that there is no
    bound.
    """
    infinite: Sequence[str] = getattr(config, "may_be_infinite", ())
    for name, hint in get_type_hints(type(config)).items():
        kinds = {hint, *get_args(hint)}
        if not {int, float} & kinds or not hasattr(config, name):
            continue
        for label, x in _known(config, name):
            if not isinstance(x, Real):  # refused, or a word in place of a number
                continue
            if wrong := _wrong(name, x, float in kinds, name in infinite):
                yield label, f"{label} must be {wrong}, got {_shown(x)}"


def _wrong(name: str, x: Any, is_float: bool, may_be_infinite: bool) -> str:
    """What the number must be and is not, or nothing."""
    if is_float:
        if not -math.inf < x < math.inf:
            return "" if may_be_infinite and x > 0 else "finite"
        return "" if abs(x) <= _LARGEST_FLOAT else f"at most {_LARGEST_FLOAT:.8g}"
    highest = _LARGER.get(name, _LARGEST)
    return "" if x <= highest else f"at most {highest}"


def _shown(x: Any) -> str:
    """The number; Python prints no integer of many thousand digits."""
    if isinstance(x, int) and x.bit_length() > 1000:
        return f"an integer of {x.bit_length()} bits"
    return str(x)


def _other_types(config: Any) -> list[str]:
    hints = get_type_hints(type(config))
    return [
        f"{field.name} must be {spelled(hints[field.name])}, got {value!r:.60}"
        for field in fields(config)
        if not _fits(value := getattr(config, field.name), hints[field.name])
    ]


def _fits(value: Any, hint: Any) -> bool:
    """False for what is certainly of another type. Choices are for `not_chosen`."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    is_array = _is_array(value)
    if get_origin(hint) is tuple:
        return is_array or _all_fit(value, get_args(hint))
    if hint in (int, float):
        kind = Integral if hint is int else Real
        number = isinstance(value, kind) and not isinstance(value, bool)
        return is_array or bool(number and value == value)  # NaN is none
    return hint not in (bool, str, NoneType) or isinstance(value, hint)


def _all_fit(values: Any, hints: tuple) -> bool:
    if not isinstance(values, tuple | list):
        return False
    if Ellipsis in hints:
        hints = hints[:1] * len(values)
    return len(values) == len(hints) and all(map(_fits, values, hints))


def spelled(hint: Any, nothing: str = "None") -> str:
    """The type in the words of a refusal; `nothing` is what None is called there."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(spelled(x, nothing) for x in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list of {spelled(get_args(hint)[0], nothing)}"
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return nothing if hint is NoneType else getattr(hint, "__name__", str(hint))


def _known(config: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(name, value) of the numbers there that can be compared."""
    value = _get(config, name)
    numbers = {name: value}
    if isinstance(value, tuple | list):
        numbers = {f"{name}[{i}]": x for i, x in enumerate(value)}
    for label, x in numbers.items():
        if x is not None and not _is_array(x):
            yield label, x


def _is_array(value: Any) -> bool:
    # Who has one has imported JAX: a command that has not need not wait for it.
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.Array)


def _get(config: Any, name: str) -> Any:
    return config[name] if isinstance(config, dict) else getattr(config, name)
