"""A process of the fleet: members of its own, in a world of JAX of its own, or none.

A Ray actor. It imports nothing of JAX before it is told with what settings.
"""

import os
import pickle
import socket
import sys
import threading
import time
from typing import Any

from jaxrl_par.fleet.messages import Failed, Hello, Progress, Reply, failed
from jaxrl_par.fleet.recipe import Recipe, Settings, software


class Process:
    """Does for members what their proxies ask."""

    def __init__(self, name: str):
        """`name`: what it is called in errors."""
        end_with_parent()
        self._where = f"{name}, process {os.getpid()} on {socket.gethostname()}"
        self._members: Any = None

    def hello(self) -> Hello:
        """Where it is, and with what."""
        return Hello(self._where, os.getpid(), software())

    def build(self, settings: Settings, recipe: bytes) -> Failed | None:
        """Prepares for members; they have no environments yet."""
        os.environ.update(settings.environ)
        sys.path += [x for x in settings.path if x not in sys.path]
        try:
            if settings.jax is not None:
                import jax

                for name, value in settings.jax.items():
                    jax.config.update(name, value)
            # As the driver sent it: see `jaxrl_par.fleet`.
            self._load(pickle.loads(recipe))
        except Exception as error:
            return failed(error, self._where)
        return None

    def _load(self, recipe: Recipe) -> None:
        from jaxrl_par.fleet.members import Members

        self._members = Members(recipe, self._where)

    def member(self, index: int, method: str, *arguments: Any) -> Reply:
        """Has a member do something; what it raises is part of the answer."""
        return self._members.do(index, method, *arguments)

    def progress(self, index: int) -> Progress:
        """How far a member is, while it does something."""
        return self._members.progress(index)

    def data(self, index: int, unroll: int) -> Any:
        """What a member kept after an unroll, one of its last two."""
        return self._members.data(index, unroll)

    def cancel(self, index: int) -> None:
        """Ends what a member does at the next call of its environments."""
        self._members.cancel(index)


def end_with_parent() -> None:
    """Ends this process soon after the one of its node that has started it. Ray waits
    for a minute where the whole cluster is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()
