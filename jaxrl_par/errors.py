"""What every part says when it refuses a name: what is allowed, and the nearest."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_args, get_type_hints


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> ValueError:
    """The error for a name that is not among those allowed, for the caller to raise."""
    allowed = sorted(allowed)
    lowered = {candidate.lower(): candidate for candidate in allowed}
    close = get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.4)
    hint = f"; did you mean {lowered[close[0]]!r}?" if close else ""
    return ValueError(f"unknown {kind} {name!r}{hint} Known: {', '.join(allowed)}")


def at_least(config: Any, **lowest: int | float | str) -> list[str]:
    """A line for each field of `config` that is lower than that, or than the field of
    that name."""
    found = []
    for name, low in lowest.items():
        bound = getattr(config, low) if isinstance(low, str) else low
        if not getattr(config, name) >= bound:
            told = f"{low} = {bound}" if isinstance(low, str) else f"{bound}"
            found.append(f"{name} must be at least {told}, got {getattr(config, name)}")
    return found


def above(config: Any, **bounds: int | float) -> list[str]:
    """A line for each field of `config` that is not above that."""
    return [
        f"{name} must be above {bound}, got {getattr(config, name)}"
        for name, bound in bounds.items()
        if not getattr(config, name) > bound
    ]


def not_between(config: Any, **bounds: tuple[int | float, int | float]) -> list[str]:
    """A line for each field of `config` that is outside its closed interval."""
    return [
        f"{name} must be in [{low:g}, {high:g}], got {value}"
        for name, (low, high) in bounds.items()
        if not low <= (value := getattr(config, name)) <= high
    ]


def not_chosen(config: Any) -> list[str]:
    """A line for each field annotated as a `Literal` that is none of its choices."""
    found = []
    for name, hint in get_type_hints(type(config)).items():
        choices, value = get_args(hint), getattr(config, name)
        if "Literal" in str(hint) and value not in choices:
            found.append(f"{name}: {unknown_name('choice', value, map(str, choices))}")
    return found
