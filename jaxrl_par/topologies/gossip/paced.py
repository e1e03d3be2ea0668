"""Learners at their own pace in processes: `own_pace`, of one learner at a time.

Whose turn it is comes from who is done, and is told by one place, so a run is one that
a schedule could have been: as data it is repeated from its record, to the same bits.
"""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par.bridge.acting import count_of
from jaxrl_par.fleet.peers import Begun
from jaxrl_par.fleet.turns import Asked, Grant
from jaxrl_par.loops import Run
from jaxrl_par.loops.matchings import is_due
from jaxrl_par.loops.peers import Learned, Parts
from jaxrl_par.topologies.gossip.own_pace import (
    Since,
    acted,
    begun,
    halfway,
    met,
    partner_at,
)
from jaxrl_par.topologies.gossip.system import System
from jaxrl_par.types import Count, Mean, Metrics, PRNGKey


class OwnPace:
    """One learner of many, alone in its process: a `Paced`."""

    def __init__(self, key: PRNGKey, system: System):
        self._key = key
        self._system = system
        self._heard = 0
        """Environment steps of all when it began its unroll, as turns count them."""
        self._made: Learned | None = None

    @property
    def run(self) -> Run:
        return self._run

    @property
    def read(self) -> int:
        updates = int(self._run.progress.updates)
        return updates - int(self._run.local.since.updates)

    def begin(self, place: int) -> Begun:
        started = time.perf_counter()
        self._place = where = np.int32(place)
        run = jax.jit(partial(begun, self._system))(self._key, where)
        # Strong types, so that what comes back is of the same.
        strong = lambda x: jax.lax.convert_element_type(x, x.dtype)  # noqa: E731
        self._run = run = jax.tree.map(strong, run)
        act = jax.jit(partial(acted, self._system))
        self._act = act.lower(run, where).compile()
        made, parts = jax.eval_shape(act, run, where), self.parts()
        meet, give = partial(met, self._system), partial(halfway, self._system)
        self._meet = jax.jit(meet).lower(run, made, parts).compile()
        self._give = jax.jit(give).lower(run.learner, parts).compile()
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
        self._made = made = jax.block_until_ready(self._act(self._run, self._place))
        due = is_due(unroll.add(1), self._system.config.interval)
        return Asked(int(unroll), int(made.env_steps), bool(due))

    def parts(self) -> Parts:
        return self._system.shared(self._run.learner)

    def give(self, theirs: Parts) -> None:
        state = self._give(self._run.learner, theirs)
        self._run = self._run._replace(learner=jax.block_until_ready(state))

    def meet(self, grant: Grant, theirs: Parts | None) -> Metrics:
        assert self._made is not None
        run = self.standing(grant.number, grant.env_steps)
        given = self.parts() if theirs is None else theirs
        run, metrics = self._meet(run, self._made, given)
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
        counts = Count(*(np.int32(x) for x in np.divmod(turns, 10**6)))
        return np.asarray(self._rows(root, counts)).tolist()


def _since(updates: int, env_steps: int) -> Since:
    return Since(jnp.int32(updates), jnp.int32(env_steps))


def _count(number: int) -> Any:
    return jax.tree.map(jnp.int32, count_of(number))
