"""Whether actors still come to newer parameters."""

from collections.abc import Iterable
from dataclasses import dataclass

from jaxrl_par.bridge.unrolled import Unrolled


@dataclass
class _Actor:
    newest: int
    """The newest version that it acted with."""
    unrolls: int = 0
    """Unrolls since then that were learned from, and had no newer one."""
    updates: int = 0
    """The lag of the last of them."""


class Pulls:
    """Finds actors whose lag grows with each update, because they never pull.

    Unrolls that were acted before the newest parameters were there are no sign of it:
    as many as can wait between an actor and an update.
    """

    def __init__(self, most_waiting: int):
        """`most_waiting`: unrolls that may wait to be learned from."""
        self._most = most_waiting
        self._actors: dict[int, _Actor] = {}

    def note(self, unrolls: Iterable[Unrolled], version: int) -> None:
        """Unrolls from which `version` learns."""
        for item in unrolls:
            acted = max(item.versions)
            known = self._actors.get(item.actor)
            if known is None or acted > known.newest:
                self._actors[item.actor] = _Actor(acted)
            elif (lag := version - acted) > known.updates:
                known.unrolls, known.updates = known.unrolls + 1, lag

    def stuck(self) -> dict[int, int]:
        """Actors that do not pull, and how many updates they are behind."""
        return {
            index: actor.updates
            for index, actor in sorted(self._actors.items())
            if actor.unrolls > self._most
        }
