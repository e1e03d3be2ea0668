"""Parameters by version, held by an actor with a name, from which processes pull.

Nobody is sent parameters that were not asked for: who pulls gets the version that it
needs, or the newest one. A version enters the object store once, and what travels is
where it lies. The driver keeps what it has published: a holder that dies is replaced,
and the new one told of all of it.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from jaxrl_par.fleet.process import end_with_parent
from jaxrl_par.lazy import late
from jaxrl_par.stream import Params

ray: Any = late("ray")

_PULL_SECONDS = 20.0
"""In which a holder answers; one that does not is replaced."""


class NoHolderError(RuntimeError):
    """The holder of the parameters does not answer, or has not what is needed."""


class Holder:
    """A Ray actor: parameters by version. Its methods run in one loop."""

    def __init__(self) -> None:
        end_with_parent()
        self._held: dict[int, list[Any]] = {}
        self._oldest = -1
        """Nothing before it is needed any more."""
        self._changed = asyncio.Condition()

    async def publish(self, version: int, boxed: list[Any], kept: list[int]) -> None:
        """
        Args:
          boxed: the reference to the parameters, in a list, so that it stays one.
          kept: versions that are still needed. Ray may bring publications in any order.
        """
        async with self._changed:
            self._oldest = max(self._oldest, min(kept))
            self._held[version] = boxed
            for old in [x for x in self._held if x < self._oldest]:
                del self._held[old]
            self._changed.notify_all()

    async def pull(self, at_least: int, exact: bool) -> tuple[int, list[Any]]:
        """A version and the reference to it, as soon as it is there.

        Args:
          exact: that version, and not the newest one.

        Raises:
          LookupError: it was dropped.
        """
        async with self._changed:
            if exact:  # a newer one may have overtaken it
                await self._changed.wait_for(
                    lambda: at_least in self._held or at_least < self._oldest
                )
            else:
                await self._changed.wait_for(
                    lambda: max(self._held, default=-1) >= at_least
                )
            version = at_least if exact else max(self._held)
            if version not in self._held:
                raise LookupError(f"version {version} is not kept: {set(self._held)}")
            return version, self._held[version]


class Puller:
    """A process's side: what it has pulled last, where it acts."""

    def __init__(self, kept: int, owned: Callable[[Params], Params]):
        """
        Args:
          kept: versions with which members may act at the same time.
          owned: what has arrived, in memory of the process's own.
        """
        self._most = kept
        self._owned = owned
        self._kept: dict[int, Params] = {}
        self._asked: tuple[str, Any] = ("", None)

    def pull(self, holder: str, at_least: int, exact: bool) -> tuple[int, Params]:
        """A version and its parameters.

        Args:
          holder: the name of the holder.

        Raises:
          NoHolderError: it does not answer in time, or says that it has them no more.
        """
        if exact and at_least in self._kept:
            return at_least, self._kept[at_least]
        try:
            answer = self._named(holder).pull.remote(at_least, exact)
            version, (reference,) = ray.get(answer, timeout=_PULL_SECONDS)
            if version not in self._kept:
                arrived = ray.get(reference, timeout=_PULL_SECONDS)
                self._kept[version] = self._owned(arrived)
                for old in sorted(self._kept)[: -self._most]:
                    del self._kept[old]
        except (ray.exceptions.RayError, ValueError) as error:
            told = str(error).partition("\n")[0]
            raise NoHolderError(f"{holder}: {type(error).__name__}: {told}") from error
        return version, self._kept[version]

    def _named(self, holder: str) -> Any:
        """The actor of that name. Ray would look it up at each call, elsewhere."""
        if self._asked[0] != holder:
            self._asked = holder, ray.get_actor(holder)
        return self._asked[1]
