"""Whose turn it is, of learners at their own pace: held by an actor with a name.

A learner that is done with an unroll asks for the next turn, and gets it as soon as
neither it nor the one whom it meets is in another meeting, or is waited for by somebody
who asked before. Both are given at once, by one place: so a meeting has both for
itself, as if nothing else was done meanwhile, and no ring of learners can wait for each
other. Nobody waits here for what somebody computes. Parameters go between the two
alone.

Turns have numbers. Two that are under way at once have no learner in common, so all of
it is what one after the other, in the order of their numbers, would have been.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from jaxrl_par.fleet.process import end_with_parent


class Asked(NamedTuple):
    """What a learner says when it is done with an unroll."""

    unroll: int
    """Its number, of this learner's."""
    env_steps: int
    meets: bool
    """Whether it is to meet somebody."""


class Grant(NamedTuple):
    """A turn, with what has to be known there."""

    number: int
    env_steps: int
    """Of all turns before."""
    partner: int
    """Whom it meets; itself if nobody."""
    name: str
    """By which Ray finds that one; empty if that is itself."""
    missed: bool
    """Whether it was to meet one that is lost, and so meets nobody."""


class Taken(NamedTuple):
    """A turn that was given, for the record."""

    learner: int
    unroll: int
    generation: int
    """How often the learner had been made anew."""
    read: int
    """Turns before its unroll began."""
    partner: int


class Settled(NamedTuple):
    """When all turns that were to be given are over."""

    number: int
    """Turns since the start of the run."""
    env_steps: int
    """Since this was made."""
    taken: list[Taken]
    """Those of this time."""


class Place(NamedTuple):
    """Where a learner begins that takes the place of one that is lost."""

    generation: int
    number: int
    """Turns until now."""
    env_steps: int
    """Of these, counted since this was made."""
    unrolls: int | None
    """That were learned from there; None if it has had no turn since this was made."""


class Turns:
    """A Ray actor. Its methods run in one loop."""

    def __init__(self, names: Sequence[str], reads: Sequence[int]):
        """
        Args:
          names: of learners, by which Ray finds them.
          reads: turns that were over when each began its unroll.
        """
        end_with_parent()
        self._names: list[str | None] = list(names)  # None: it is lost
        self._generations = [0] * len(names)
        self._reads = list(reads)
        self._unrolls: dict[int, int] = {}
        self._partners: list[list[int]] = []
        self._first = self._number = self._env_steps = 0
        self._waiting: dict[int, tuple[Asked, asyncio.Future[Grant | None]]] = {}
        """By learner, who asked first first."""
        self._under_way: dict[int, Grant] = {}
        """By learner whose turn it is."""
        self._taken: list[Taken] = []
        self._over = asyncio.Event()

    async def open(self, first: int, partners: list[list[int]]) -> None:
        """Lets in so many turns more.

        Args:
          first: their first number.
          partners: [turn][learner], whom that one meets if the turn is its own.
        """
        self._first = self._number = first
        self._partners, self._taken = partners, []
        self._give()

    async def take(self, learner: int, generation: int, asked: Asked) -> Grant | None:
        """The next turn, as soon as it may be had; None to one that was replaced."""
        if self._replaced(learner, generation):
            return None
        granted: asyncio.Future[Grant | None]
        granted = asyncio.get_running_loop().create_future()
        self._waiting[learner] = asked, granted
        self._give()
        return await granted

    async def done(self, learner: int, generation: int, missed: bool) -> None:
        """Ends a learner's turn.

        Args:
          missed: whether its partner did not answer, and is lost.
        """
        if self._replaced(learner, generation):
            return
        grant = self._under_way.pop(learner)
        if missed and self._names[grant.partner] == grant.name:
            self._names[grant.partner] = None
        self._reads[learner] = grant.number + 1
        self._give()

    async def settled(self) -> Settled:
        """What was done, when all that was let in is over."""
        await self._over.wait()
        return Settled(self._number, self._env_steps, self._taken)

    async def lose(self, learner: int) -> None:
        """Nobody meets it any more, and what it has begun is over."""
        self._names[learner] = None
        self._generations[learner] += 1
        self._under_way.pop(learner, None)
        if waiting := self._waiting.pop(learner, None):
            waiting[1].set_result(None)
        self._give()

    async def place(self, learner: int) -> Place:
        """Where another one begins that takes the place of this one."""
        counts = self._number, self._env_steps
        return Place(self._generations[learner], *counts, self._unrolls.get(learner))

    async def join(self, learner: int, name: str, read: int) -> None:
        """One that was lost is there again, and has begun after so many turns."""
        self._names[learner] = name
        self._reads[learner] = read

    @property
    def _left(self) -> int:
        """Turns that may still be given."""
        return self._first + len(self._partners) - self._number

    def _replaced(self, learner: int, generation: int) -> bool:
        return generation != self._generations[learner]

    def _drawn(self, learner: int, asked: Asked) -> int:
        """Whom a learner meets if the next turn is its own."""
        row = self._partners[self._number - self._first]
        return row[learner] if asked.meets else learner

    def _give(self) -> None:
        """Gives a turn to each who may have one."""
        while (learner := self._next()) is not None:
            asked, granted = self._waiting.pop(learner)
            granted.set_result(self._granted(learner, asked))
        if self._left or self._under_way:
            self._over.clear()
        else:
            self._over.set()

    def _next(self) -> int | None:
        """Who may have the next turn. Whom others wait for who asked before, that one
        is theirs: else two that are fast could have all turns."""
        if not self._left:
            return None
        busy = {grant.partner for grant in self._under_way.values()}
        busy |= self._under_way.keys()
        for learner, (asked, _) in self._waiting.items():
            pair = {learner, self._drawn(learner, asked)}
            if not busy & pair:
                return learner
            busy |= pair
        return None

    def _granted(self, learner: int, asked: Asked) -> Grant:
        drawn = self._drawn(learner, asked)
        name = self._names[drawn]
        missed, alone = name is None, name is None or drawn == learner
        partner, name = (learner, "") if alone else (drawn, name or "")
        grant = Grant(self._number, self._env_steps, partner, name, missed)
        generation, read = self._generations[learner], self._reads[learner]
        self._taken.append(Taken(learner, asked.unroll, generation, read, partner))
        self._under_way[learner] = grant
        self._unrolls[learner] = asked.unroll + 1
        self._number += 1
        self._env_steps += asked.env_steps
        return grant
