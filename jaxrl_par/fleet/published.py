"""The driver's side of the parameters: what it published, and who holds it."""

import threading
import warnings
from collections import deque
from typing import Any

from jaxrl_par.bridge.actor_learner.queue import Publisher
from jaxrl_par.bridge.supervision import Supervisor
from jaxrl_par.fleet.arrays import on_host
from jaxrl_par.fleet.cluster import Call, Cluster, Handle, LostError
from jaxrl_par.fleet.parameters import Holder
from jaxrl_par.types import Params

_MOST = 16
"""Publications that may be on their way."""


class Published:
    """What was published, and the actor that holds it."""

    def __init__(self, cluster: Cluster, restarts: int):
        """`restarts`: holders that may be lost."""
        self.lost = 0
        """Holders that were lost."""
        self._cluster = cluster
        self._restarts = restarts
        self._lock = threading.Lock()
        self._references: dict[int, Any] = {}
        self._sent: list[Call] = []
        self._news: deque[str] = deque()
        self._handle = self._made()

    @property
    def holder(self) -> str:
        """Its name, by which processes find it."""
        return self._cluster.full_name(self._name)

    def publish(self, version: int, params: Params, kept: list[int]) -> None:
        """Puts a version into the object store, once, and tells the holder.

        Args:
          kept: versions that are still needed, this one among them.
        """
        reference = self._cluster.put(on_host(params))
        with self._lock:
            self._references[version] = reference
            for old in self._references.keys() - set(kept):
                del self._references[old]
            self._tell(version)
            late = self._sent[:-_MOST]
            self._sent = self._sent[-_MOST:]
        for call in late:
            # One that is dead answers at once; who pulls from it will tell.
            call.ready(1.0)
        while self._news:
            warnings.warn(self._news.popleft(), stacklevel=2)

    def replace(self, holder: str, why: str) -> None:
        """Makes a new holder, and tells it all that is kept, unless that was done.

        Args:
          holder: the name of the one that was asked.

        Raises:
          LostError: it is one too many.
        """
        with self._lock:
            if holder != self.holder:
                return
            self.lost += 1
            if self.lost > self._restarts:
                raise LostError(f"the parameters cannot be had: {why}")
            self._handle.kill()
            self._handle = self._made()
            self._sent = []
            for version in sorted(self._references):
                self._tell(version)
        # Who publishes tells of it: the thread of an actor could lose a warning.
        self._news.append(f"made a new holder of the parameters: {why}")

    @property
    def _name(self) -> str:
        return f"parameters-{self.lost}"

    def _made(self) -> Handle:
        # Where the parameters come from: who pulls them goes there anyway, and another
        # node may be lost.
        return self._cluster.make(Holder, name=self._name, here=True)

    def _tell(self, version: int) -> None:
        # In a list, or Ray would send the parameters and not where they lie.
        boxed, kept = [self._references[version]], sorted(self._references)
        self._sent.append(self._handle.call("publish", version, boxed, kept))


class HeldPublisher(Publisher):
    """A publisher whose versions processes can pull."""

    def __init__(self, supervisor: Supervisor, keep: int, published: Published):
        super().__init__(supervisor, keep)
        self._published = published

    def publish(self, version: int, params: Params) -> None:
        kept = sorted([*self._params, version])[-self._keep :]
        # First: an actor is let in by a version that processes will find.
        self._published.publish(version, params, kept)
        super().publish(version, params)
