"""Who acts for actors that hold no network: their memory, and what they asked last.

It knows nothing of threads. A request and its answer are arrays and whole numbers, and
a request that comes twice, because an answer was late or lost, has the same answer:
memory has stepped once. So they may travel between processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_par.bridge.acting import Acting, count_of
from jaxrl_par.bridge.central.compiled import Compiled, Kept
from jaxrl_par.types import Carry, Count, Extras, Params, PRNGKey, TimeStep, Trajectory


class ProtocolError(RuntimeError):
    """A request that is not the next one of its actor, nor its last one again."""


class Request(NamedTuple):
    """An actor wants actions for what its environments show."""

    actor: int
    incarnation: int
    """How often its environments were made anew. A new one has fresh memory."""
    unroll: int
    row: int
    """Of the unroll, from 0 on."""
    step: TimeStep
    """[B, ...]"""
    version: int | None = None
    """Of the parameters that are to act; None takes the newest."""

    @property
    def place(self) -> tuple[int, int, int]:
        """What is asked for once: by incarnation, unroll and row."""
        return self.incarnation, self.unroll, self.row


class Answer(NamedTuple):
    """What to do."""

    action: Any
    """[B, ...], in NumPy."""
    version: int
    """Of the parameters that acted, all of them."""


class Ended(NamedTuple):
    """An actor has acted in all rows of an unroll."""

    actor: int
    incarnation: int
    unroll: int
    trajectory: Trajectory
    """Without extras and memory."""


class Rest(NamedTuple):
    """What an unroll has of the place that acted."""

    extras: Extras
    """Leaves [T, B, ...] in NumPy; `version` tells who acted in each row."""
    before: Carry
    """Memory before the first row, in NumPy."""
    after: Carry
    """Memory after the last row."""


@dataclass
class _Known:
    """The last request of an actor."""

    place: tuple[int, int, int]
    answer: Answer
    params: Params
    """Those that acted."""
    versions: list[int] = field(default_factory=list)
    """Of each row of the unroll in progress."""


class Place:
    """Acts for up to M of A actors in each call."""

    def __init__(
        self,
        compiled: Compiled,
        acting: Acting,
        length: int,
        num_actors: int,
        slots: int,
        root: PRNGKey,
        device: Any,
    ):
        """
        Args:
          acting: how actors act by themselves.
          length: T, rows of an unroll.
          slots: M
          device: a `jax.Device`, where it acts.
        """
        self.slots = slots
        self._compiled = compiled
        self._acting = acting
        self._length = length
        self._num_actors = num_actors
        self._root = jax.device_put(root, device)
        self._device = device
        self._kept: Kept | None = None
        self._known: dict[int, _Known] = {}
        self._restored: dict[tuple[int, int], Carry] = {}

    def slot(self, actor: int) -> int:
        """Its place in a batch, which has one of each."""
        return actor % self.slots

    def restore(self, actor: int, incarnation: int, memory: Carry) -> None:
        """Memory [B, ...] with which an incarnation begins here, in place of a fresh
        one."""
        self._restored[actor, incarnation] = memory

    def answer(
        self, requests: Sequence[Request], version: int, params: Params
    ) -> list[Answer]:
        """Acts for all who ask, except for those who ask again.

        Args:
          requests: at most one for each slot.

        Raises:
          ProtocolError: one is out of order, or of an incarnation that was replaced.
        """
        new = [x for x in requests if not self._again(x)]
        slots = {self.slot(x.actor) for x in new}
        if len(slots) < len(new):
            raise ProtocolError(f"{len(new)} requests are for {len(slots)} slots")
        if new:
            with jax.default_device(self._device):
                self._act(new, version, params)
        return [self._known[x.actor].answer for x in requests]

    def end(self, ended: Ended) -> Rest:
        """What the last unroll of an actor has of this place.

        Raises:
          ProtocolError: it is not at the end of this unroll.
        """
        known = self._known.get(ended.actor)
        last = ended.incarnation, ended.unroll, self._length - 1
        if known is None or known.place != last:
            told = "nowhere" if known is None else f"at {known.place}"
            raise ProtocolError(f"actor {ended.actor} ended {last}, but is {told}")
        with jax.default_device(self._device):
            took = self._compiled.take(self._kept, np.int32(ended.actor))
            extras, before, after = took
            before = jax.device_get(before)
            acted = ended.trajectory._replace(extras=extras, carry=before)
            extras = self._acting.complete(known.params, after, acted)
            extras = jax.device_get(extras)
        num_envs = acted.reward.shape[1]
        versions = np.array(known.versions, np.int32)[:, None]
        extras["version"] = np.repeat(versions, num_envs, axis=1)
        return Rest(extras, before, after)

    def _again(self, request: Request) -> bool:
        """Whether it is the last one of its actor once more.

        Raises:
          ProtocolError: it is neither that nor the next one.
        """
        known = self._known.get(request.actor)
        if known is not None and known.place == request.place:
            return True
        if known is None or request.incarnation > known.place[0]:
            expected = request.incarnation, request.unroll, 0
        else:
            was, last_unroll, last_row = known.place
            ends = last_row + 1 == self._length
            next_one = (last_unroll + 1, 0) if ends else (last_unroll, last_row + 1)
            expected = was, *next_one
        if request.place != expected:
            raise ProtocolError(
                f"actor {request.actor} asks for {request.place} (incarnation, unroll,"
                f" row), and is at {expected}"
            )
        return False

    def _act(self, new: list[Request], version: int, params: Params) -> None:
        actors = np.full(self.slots, self._num_actors, np.int32)
        rows = np.zeros(self.slots, np.int32)
        if first := [x for x in new if x.row == 0]:
            self._begin(first, params)
        for request in new:
            slot = self.slot(request.actor)
            actors[slot], rows[slot] = request.actor, request.row
        steps = self._stacked(new)
        action, self._kept = self._compiled.act(params, self._kept, actors, rows, steps)
        action = jax.tree.map(np.asarray, action)
        for request in new:
            slot = self.slot(request.actor)
            own = jax.tree.map(lambda x, slot=slot: x[slot], action)
            answer = Answer(own, version)
            versions = []
            if request.row:
                versions = self._known[request.actor].versions
            versions.append(version)
            known = _Known(request.place, answer, params, versions)
            self._known[request.actor] = known

    def _begin(self, first: list[Request], params: Params) -> None:
        """Before the first row of an unroll of each."""
        if self._kept is None:
            self._kept = self._compiled.start(params, first[0].step, self._root)
        for request in first:
            known = self._known.get(request.actor)
            if known is None or known.place[0] != request.incarnation:
                self._enter(request)
        actors = np.zeros((3, self.slots), np.int32)
        for i, request in enumerate(first):
            actors[:, i] = request.actor, *count_of(request.unroll)
        unrolls: Any = Count(*actors[1:])  # pyright: ignore
        self._kept = self._compiled.begin(
            self._kept, np.int32(len(first)), actors[0], unrolls, self._root
        )

    def _enter(self, request: Request) -> None:
        """Memory that was saved, or that is fresh."""
        num_envs, index = len(request.step.first), np.int32(request.actor)
        place = request.actor, request.incarnation
        memory = self._restored.pop(place, None)
        if memory is None:
            memory = self._acting.carry(num_envs, index)
        memory = jax.device_put(memory, self._device)
        self._kept = self._compiled.enter(self._kept, index, memory)

    def _stacked(self, new: list[Request]) -> TimeStep:
        """Their steps, each in its slot, and zeros where nobody asks. It is a copy: a
        device array may share the memory of what it is made from, and an environment
        fills its own again."""
        slots = [self.slot(x.actor) for x in new]

        def stack(*leaves: Any) -> np.ndarray:
            first = leaves[0]
            batch = np.zeros((self.slots, *first.shape), first.dtype)
            for slot, leaf in zip(slots, leaves, strict=True):
                batch[slot] = leaf
            return batch

        return jax.tree.map(stack, *(x.step for x in new))
