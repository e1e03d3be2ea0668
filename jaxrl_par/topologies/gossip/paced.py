"""Learners at their own pace in processes: `own_pace`, of one learner at a time.

Whose turn it is comes from who is done, and is told by one place, so a run is one that
a schedule could have been. `PacedReplay` repeats it from its record in one process, to
the same bits; as data, in one program, its numbers are those but for rounding, as XLA
makes other operations of the pieces.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.bridge.acting import count_of
from jaxrl_par.fleet.learners import stacked
from jaxrl_par.fleet.peers import Begun
from jaxrl_par.fleet.turns import Asked, Grant
from jaxrl_par.loops import Engine, Run
from jaxrl_par.loops.matchings import is_due
from jaxrl_par.loops.peers import Learned, Parts
from jaxrl_par.loops.records import RecordError, Turn
from jaxrl_par.topologies.gossip.own_pace import (
    Since,
    acted,
    begun,
    halfway,
    met,
    partner_at,
)
from jaxrl_par.topologies.gossip.system import System
from jaxrl_par.types import Count, Mean, Metrics, PRNGKey, State


class Pieces(NamedTuple):
    """A turn, compiled: see `own_pace`."""

    act: Callable[[Run, np.int32], Learned]
    meet: Callable[[Run, Learned, Parts], tuple[Run, Metrics]]
    give: Callable[[State, Parts], State]


class OwnPace:
    """One learner of many, alone in its process: a `Paced`."""

    def __init__(self, key: PRNGKey, system: System):
        self._key = key
        self._system = system
        self._pieces: Pieces | None = None
        self._heard = 0
        """Environment steps of all when it began its unroll, as turns count them."""
        self._made: Learned | None = None

    @property
    def run(self) -> Run:
        return self._run

    @property
    def pieces(self) -> Pieces:
        """What is compiled."""
        assert self._pieces is not None
        return self._pieces

    @property
    def read(self) -> int:
        updates = int(self._run.progress.updates)
        return updates - int(self._run.local.since.updates)

    def begin(self, place: int, pieces: Pieces | None = None) -> Begun:
        """As `Paced.begin`. `pieces` are those of another one, which are the same."""
        started = time.perf_counter()
        self._place = where = np.int32(place)
        run = jax.jit(partial(begun, self._system))(self._key, where)
        # Strong types, so that what comes back is of the same.
        strong = lambda x: jax.lax.convert_element_type(x, x.dtype)  # noqa: E731
        self._run = run = jax.tree.map(strong, run)
        self._pieces = pieces or _compiled(self._system, run, where)
        return Begun(jax.block_until_ready(run), time.perf_counter() - started)

    def resume(self, run: Run) -> None:
        self._run = run

    def replace(self, run: Run, number: int, unrolls: int | None) -> None:
        local = run.local._replace(
            read=self._system.shared(run.learner), since=_since(0, 0)
        )
        if unrolls is not None:
            local = local._replace(unroll=_count(unrolls))
        progress = run.progress._replace(updates=_count(number))
        self._run = run._replace(local=local, progress=progress)

    def join(self, env_steps: int) -> None:
        self._heard = env_steps - int(self._run.local.since.env_steps)

    def act(self) -> Asked:
        unroll = self._run.local.unroll
        self._made = made = jax.block_until_ready(
            self.pieces.act(self._run, self._place)
        )
        due = is_due(unroll.add(1), self._system.config.interval)
        return Asked(int(unroll), int(made.env_steps), bool(due))

    def parts(self) -> Parts:
        return self._system.shared(self._run.learner)

    def give(self, theirs: Parts) -> None:
        state = self.pieces.give(self._run.learner, theirs)
        self._run = self._run._replace(learner=jax.block_until_ready(state))

    def meet(self, grant: Grant, theirs: Parts | None) -> Metrics:
        assert self._made is not None
        run = self.standing(grant.number, grant.env_steps)
        given = self.parts() if theirs is None else theirs
        run, metrics = self.pieces.meet(run, self._made, given)
        self._run = jax.block_until_ready(run)
        self._heard = grant.env_steps + int(self._made.env_steps)
        drawn = grant.missed or grant.name != ""
        counts: Any = np.array([drawn and theirs is None, drawn], np.float32)
        return metrics | {"missed": Mean(counts[0], counts[1])}

    def standing(self, number: int, env_steps: int) -> Run:
        since = _since(number - self.read, env_steps - self._heard)
        progress = self._run.progress._replace(updates=_count(number))
        local = self._run.local._replace(since=since)
        return self._run._replace(local=local, progress=progress)


class PacedReplay(Engine):
    """Repeats a record of learners in processes, in one process and one thread."""

    def __init__(self, system: System, turns: Sequence[Turn]):
        """
        Raises:
          RecordError: the record is of other learners.
        """
        places = {turn.worker for turn in turns}
        if not places <= set(range(system.size)):
            told = f"the record is of learners {sorted(places)}"
            raise RecordError(f"{told}, asked for {system.size}")
        self._system = system
        self._turns = turns
        self._members: list[OwnPace] = []
        self._number = self._env_steps = 0
        self._compile_seconds = 0.0

    @property
    def compile_seconds(self) -> float:
        return self._compile_seconds

    def init(self, key: PRNGKey) -> Run:
        self._partners = Partners(self._system)
        self._members = [OwnPace(key, self._system) for _ in range(self._system.size)]
        first = self._members[0]
        self._compile_seconds = first.begin(0).compile_seconds
        for place, member in enumerate(self._members[1:], start=1):
            member.begin(place, first.pieces)
        return stacked([member.run for member in self._members])

    def resume(self, run: Run) -> None:
        """
        Raises:
          RecordError: whatever the run is.
        """
        raise RecordError("a replay starts at the beginning: it cannot be resumed")

    def advance(self, run: Run, num_updates: int) -> tuple[Run, Metrics]:
        """So many turns of the record.

        Raises:
          RecordError: it has fewer, or is of another run.
        """
        first, known = self._number, len(self._turns)
        if first + num_updates > known:
            asked = first + num_updates
            raise RecordError(f"the record has {known} updates, asked for {asked}")
        partners = self._partners(run.key[0], first, num_updates)
        rows = [self._turned(row) for row in partners]
        counts = self._number, self._env_steps
        runs = [member.standing(*counts) for member in self._members]
        metrics = jax.tree.map(lambda *xs: np.stack(xs), *rows)
        return stacked(runs)._replace(settings=run.settings), metrics

    def record(self, path: Path) -> None:
        """Does nothing: a replay already has its schedule."""

    def report(self) -> None:
        """None: nothing runs in parallel here."""

    def close(self) -> None:
        """Does nothing."""

    def _turned(self, partners: list[int]) -> Metrics:
        """The metrics of the next turn; `partners` are whom each would meet in it."""
        turn = self._turns[self._number]
        member, asked = self._members[turn.worker], None
        if turn.read[0] == member.read:
            asked = member.act()
        if asked is None or asked.unroll != turn.unroll:
            told = f"update {self._number} of the record does not fit this run"
            raise RecordError(f"{told}: learner {turn.worker}, unroll {turn.unroll}")
        partner = partners[turn.worker] if asked.meets else turn.worker
        name = "" if partner == turn.worker else f"learner {partner}"
        grant = Grant(self._number, self._env_steps, partner, name, missed=False)
        theirs = None
        if name:
            theirs = self._members[partner].parts()
            self._members[partner].give(member.parts())
        self._number += 1
        self._env_steps += asked.env_steps
        return member.meet(grant, theirs)


class Partners:
    """Whom learners meet in each turn, as data."""

    def __init__(self, system: System):
        places = jnp.arange(system.size)
        row = jax.vmap(partial(partner_at, system), (None, None, 0))
        self._rows = jax.jit(
            lambda root, turns: jax.vmap(row, (None, 0, None))(root, turns, places)
        )

    def __call__(self, root: PRNGKey, first: int, number: int) -> list[list[int]]:
        """[turn][learner], whom that one meets if the turn is its own."""
        turns = np.arange(first, first + number, dtype=np.int64)
        counts = Count(*map(jnp.int32, np.divmod(turns, 10**6)))
        return np.asarray(self._rows(root, counts)).tolist()


def _compiled(system: System, run: Run, place: np.int32) -> Pieces:
    act = jax.jit(partial(acted, system))
    made, parts = jax.eval_shape(act, run, place), system.shared(run.learner)
    meet, give = partial(met, system), partial(halfway, system)
    return Pieces(
        act.lower(run, place).compile(),
        jax.jit(meet).lower(run, made, parts).compile(),
        jax.jit(give).lower(run.learner, parts).compile(),
    )


def _since(updates: int, env_steps: int) -> Since:
    return Since(jnp.int32(updates), jnp.int32(env_steps))


def _count(number: int) -> Any:
    return jax.tree.map(jnp.int32, count_of(number))
