"""Whether environments are one and the same object, themselves or under wrappers.

Stepped as several, one object would take several steps a row, and each of its
environments would see a part of them.
"""

import threading
from collections.abc import Iterator
from typing import Any

from jaxrl_par.errors import RefusedError

_UNDER = ("env", "_env", "unwrapped", "venv", "vector_env")
"""Where wrappers keep what they wrap."""
_MOST = 10_000
"""Parts of an environment that are looked at: some objects invent attributes."""


class Owners:
    """Who steps which simulators, so that no two step the same."""

    def __init__(self, kind: str, instead: str):
        """
        Args:
          kind: what an owner is, such as "environment".
          instead: what would be right.
        """
        self._kind, self._instead = kind, instead
        self._lock = threading.Lock()
        self._parts: dict[int, dict[int, Any]] = {}

    def claim(self, owner: int, env: Any) -> None:
        """Notes what an owner steps from now on.

        Raises:
          RefusedError: some of it is another owner's, or was this one's before.
        """
        parts = {id(part): part for part in simulators(env)}
        with self._lock:
            for other, theirs in self._parts.items():
                shared = [part for x, part in parts.items() if x in theirs]
                if shared:
                    raise RefusedError(
                        f"{self._kind}s {other} and {owner} would be one object, a"
                        f" {type(shared[0]).__name__}: {self._instead}"
                    )
            self._parts[owner] = parts


def simulators(env: Any) -> Iterator[Any]:
    """The environment, and those within it, each once."""
    found: set[int] = set()
    waiting = [env]
    while waiting and len(found) < _MOST:
        part = waiting.pop()
        if id(part) not in found:
            found.add(id(part))
            yield part
            waiting += _within(part)


def _within(env: Any) -> list[Any]:
    under = [getattr(env, name, None) for name in _UNDER]
    inner = [x for x in under if _steps(x)]
    for value in list(getattr(env, "__dict__", {}).values()):
        several = value if isinstance(value, list | tuple) else (value,)
        inner += [x for x in several if _steps(x) and _has_actions(x)]
    return inner


def _has_actions(x: Any) -> bool:
    return hasattr(x, "action_space") or hasattr(x, "action_spec")


def _steps(x: Any) -> bool:
    """Whether it has the methods of an environment, and a state: pure environments,
    which are tuples of functions, may be shared."""
    pure = isinstance(x, tuple | type)
    return not pure and all(callable(getattr(x, n, None)) for n in ("reset", "step"))
