"""Learners in processes of their own, which meet each other without the driver.

A learner that has updated sends what it has to those whom it meets in that round, and
waits for theirs. Rounds and pairs are known to all beforehand, so nobody asks who comes
next, and who is ahead leaves what it sends with the others. One that is lost is missed:
whoever would meet it goes on alone, in this round and in all later ones.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from jaxrl_par.fleet.arrays import on_host, own_on
from jaxrl_par.fleet.process import Process
from jaxrl_par.fleet.recipe import Recipe
from jaxrl_par.lazy import late
from jaxrl_par.loops import Run
from jaxrl_par.types import Metrics

ray: Any = late("ray")

_ASKED_AGAIN = 0.5
"""Seconds between two looks at whether somebody who is waited for is still there."""


class Known(NamedTuple):
    """Whom a learner knows, and how long it waits for them."""

    names: tuple[str, ...]
    """Of all learners, by which Ray finds them."""
    place: int
    """Its own."""
    patience: float
    """Seconds without a sign after which another is taken for lost."""


class Begun(NamedTuple):
    """A learner that is ready."""

    run: Run
    compile_seconds: float


class Advanced(NamedTuple):
    """What came of some updates."""

    run: Run
    """Leaves in NumPy."""
    metrics: list[Metrics]
    lost: tuple[int, ...]
    """Whom it misses."""


class Peer(Protocol):
    """A learner, as a recipe makes it."""

    def begin(self, place: int) -> Begun:
        """A new run, and all that is compiled."""
        ...

    def resume(self, run: Run) -> None: ...

    def update(self) -> tuple[int, tuple[int, ...], Any]:
        """The number of a round, whom it meets then, and what it has for them."""
        ...

    def meet(self, theirs: Sequence[Any]) -> Metrics:
        """Ends the round; None stands for one who is missed."""
        ...

    @property
    def run(self) -> Run: ...


class Mail:
    """What others have sent, until it is its turn."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sent: dict[tuple[int, int], Any] = {}

    def put(self, round_: int, sender: int, parts: Any) -> None:
        with self._changed:
            self._sent[round_, sender] = parts
            self._changed.notify_all()

    def take(self, round_: int, sender: int, seconds: float) -> Any:
        """What was sent for a round, None if nothing comes in so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: (round_, sender) in self._sent, seconds)
            return self._sent.pop((round_, sender), None)


class PeerProcess(Process):
    """A Ray actor with a learner, whose advance and mail have a thread each."""

    _peer: Peer

    def __init__(self, name: str):
        super().__init__(name)
        self._mail = Mail()
        self._lost: set[int] = set()
        self._known: Known | None = None

    def begin(self, known: Known) -> Begun:
        self._known = known
        begun = self._peer.begin(known.place)
        return begun._replace(run=on_host(begun.run))

    def resume(self, run: Run) -> None:
        self._peer.resume(own_on(_device(), run))

    def advance(self, num_updates: int) -> Advanced:
        metrics = []
        for _ in range(num_updates):
            round_, others, parts = self._peer.update()
            theirs = self._exchanged(round_, others, parts)
            metrics.append(on_host(self._peer.meet(theirs)))
        return Advanced(on_host(self._peer.run), metrics, tuple(sorted(self._lost)))

    def give(self, round_: int, sender: int, parts: Any) -> bool:
        """Takes what another has for a round; whether it is waited for at all."""
        if sender in self._lost:
            return False
        self._mail.put(round_, sender, own_on(_device(), parts))
        return True

    def present(self, asker: int) -> bool:
        """That it is there; whether the asker is still waited for."""
        return asker not in self._lost

    def _load(self, recipe: Recipe) -> None:
        self._peer = recipe.make(recipe.key, *recipe.arguments)

    def _exchanged(self, round_: int, others: tuple[int, ...], parts: Any) -> list[Any]:
        """What each of the others has for the round, None of those that are lost."""
        sent = on_host(parts)
        known = self._known
        assert known is not None
        here = sorted(set(others) - self._lost)
        calls = {i: self._to(i, "give", round_, known.place, sent) for i in here}
        found = {i: self._waited(round_, i, calls[i]) for i in here}
        self._lost |= {i for i, x in found.items() if x is None}
        return [found.get(i) for i in others]

    def _waited(self, round_: int, other: int, call: Any) -> Any:
        """What the other sends, None as soon as it is lost: its process ended, or is
        silent for too long, or it has given up this one."""
        assert self._known is not None
        seen = time.monotonic()
        while (parts := self._mail.take(round_, other, _ASKED_AGAIN)) is None:
            if call is None:
                return None
            answered, _ = ray.wait([call], timeout=0)
            try:
                if answered and not ray.get(call):
                    return None
            except ray.exceptions.RayError:
                return None
            if answered:
                seen = time.monotonic()
                call = self._to(other, "present", self._known.place)
            elif time.monotonic() - seen > self._known.patience:
                return None
        return parts

    def _to(self, other: int, method: str, *arguments: Any) -> Any:
        """Asks another one, and does not wait; None if there is none."""
        assert self._known is not None
        try:
            actor = ray.get_actor(self._known.names[other])
        except (ValueError, ray.exceptions.RayError):
            return None
        options = {"concurrency_group": "watch"}
        return getattr(actor, method).options(**options).remote(*arguments)


def _device() -> Any:
    import jax

    return jax.devices("cpu")[0]
