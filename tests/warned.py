"""Warnings of programs with threads."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock


@contextmanager
def warned(match: str = "") -> Iterator[list[str]]:
    """As `pytest.warns`; gives the messages.

    Where warnings go is one place for all threads, and threads that catch some, as JAX
    does, may give it back in another order than they took it: `pytest.warns` then sees
    nothing.
    """
    messages: list[str] = []

    def warn(message, category=None, *options, **named) -> None:
        if category in (None, UserWarning):
            messages.append(str(message))

    with mock.patch.object(warnings, "warn", warn):
        yield messages
    assert any(re.search(match, x) for x in messages), messages
