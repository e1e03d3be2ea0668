"""What the engines that repeat a recorded run in one thread have in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic

from jaxrl_par.bridge.factory import ActorFactory, M
from jaxrl_par.bridge.supervision import Activity
from jaxrl_par.envs.host.failures import close_all
from jaxrl_par.loops import Engine, Run
from jaxrl_par.loops.records import RecordError


class ReplayEngine(Engine, Generic[M]):
    """An engine that repeats a record in one thread. A subclass adds `init` and
    `advance`.

    Raises:
      RecordError: in `advance`, if the record ends earlier, or does not fit the run.
    """

    def __init__(self, num_members: int, schedule: Sequence[Any], name: str):
        """
        Args:
          schedule: the record, update by update.
          name: what a member is called in errors.
        """
        self._num_members = num_members
        self._schedule = schedule
        self._name = name
        self._update = 0
        """The update of the record that is next to be done."""
        self._members: list[M] = []
        self._factory: ActorFactory[M] | None = None

    @property
    def compile_seconds(self) -> float:
        return self._factory.tally.compile_seconds if self._factory else 0.0

    def resume(self, run: Run) -> None:
        """
        Raises:
          RecordError: parameters of the past, which the record asks for, are not kept.
        """
        raise RecordError("a replay starts at the beginning: it cannot be resumed")

    def record(self, path: Path) -> None:
        """Does nothing: a replay already has its schedule."""

    def report(self) -> None:
        """None: nothing runs in parallel here."""

    def close(self) -> None:
        """Frees all environments.

        Raises:
          Exception: what the first raised that could not be freed.
        """
        members = enumerate(self._members)
        close_all({f"{self._name} {i}": member.close for i, member in members})

    def _start(self, factory: ActorFactory[M]) -> list[M]:
        """Makes all members, and their environments."""
        self._factory = factory
        for index in range(self._num_members):
            activity = Activity(f"{self._name} {index}", float("inf"))
            member = factory.actor(index, activity=activity)
            self._members.append(member)
            member.start(factory.env_key(index, 0))
        return self._members

    def _next(self, num_updates: int) -> Sequence[Any]:
        """So many updates of the record, if it has them."""
        known, asked = len(self._schedule), self._update + num_updates
        if asked > known:
            raise RecordError(f"the record has {known} updates, asked for {asked}")
        return self._schedule[self._update : asked]

    def _member(self, index: int, generation: int, unroll: int) -> M:
        """The one whose turn it is, with environments made anew where it had them.

        Raises:
          RecordError: there is none, or it is at another unroll.
        """
        if not 0 <= index < len(self._members):
            raise RecordError(
                f"update {self._update} of the record is of {self._name} {index}, and"
                f" there are {len(self._members)}"
            )
        member = self._members[index]
        if generation != member.generation:
            assert self._factory is not None
            member.close()
            member.start(self._factory.env_key(index, generation), generation, unroll)
        if member.next_unroll != unroll:
            raise RecordError(
                f"update {self._update} of the record wants unroll {unroll} of"
                f" {self._name} {index}, which is at {member.next_unroll}"
            )
        return member
