"""Prompts and notebooks: somebody types there, and goes on afterwards."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from jaxrl_par.training.interrupts import Interrupted


def in_session() -> bool:
    """Whether this process is a prompt's or a notebook's."""
    return hasattr(sys, "ps1")


def in_notebook() -> bool:
    """Whether output is shown by a notebook, which can draw it anew."""
    # Nothing is imported: whoever is in a notebook has IPython.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")


@contextmanager
def keeps_sessions() -> Iterator[None]:
    """A stop by a signal does not end a session, nor asks to "use 'exit'".

    Raises:
      KeyboardInterrupt: in a session, where a script would get `Interrupted`.
    """
    try:
        yield
    except Interrupted as stopped:
        if not in_session():
            raise
        raise KeyboardInterrupt(
            "the run was stopped, and goes on with resume=True"
        ) from stopped
