"""Learners that gossip in processes of their own, on any node of a Ray cluster.

At their own pace they take turns: see `paced`. Together, all that they do, and whom
they meet, is that of the compiled program: the pairs of a round come from the run's key
and its number alone, so nobody has to ask. Here each waits only for those whom it
meets, not for all; what is computed does not depend on who is first. The numbers are
those of the compiled program but for rounding: matrix products of all learners at once
are others there, and so is what XLA makes one operation of.

One that dies is missed: who would meet it rests in that round, which is counted, and
the others stay in their pairs. It is not made anew before the run goes on later, from a
checkpoint: then it has the mean of the others.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_par import loops, rollout
from jaxrl_par.bridge.acting import count_of
from jaxrl_par.envs import Environment
from jaxrl_par.envs.base import refuse_others
from jaxrl_par.errors import refuse
from jaxrl_par.fleet.config import FleetConfig
from jaxrl_par.fleet.connection import import_ray
from jaxrl_par.fleet.learners import LearnerFleetEngine
from jaxrl_par.fleet.paced_learners import PacedFleetEngine
from jaxrl_par.fleet.peers import Begun
from jaxrl_par.loops import Learner, Run, learner_of
from jaxrl_par.loops.matchings import matching_of, matchings
from jaxrl_par.loops.peers import Parts, distance, moved
from jaxrl_par.loops.records import read_turns
from jaxrl_par.measured import Metric
from jaxrl_par.topologies.gossip.config import GossipConfig
from jaxrl_par.topologies.gossip.paced import OwnPace, PacedReplay, Partners
from jaxrl_par.topologies.gossip.system import System
from jaxrl_par.topologies.gossip.together import start, updated
from jaxrl_par.types import Agent, Mean, Metrics, PRNGKey

METRICS = {
    "missed": Metric("share of meetings", "that found the other learner lost"),
    "meeting_ms": Metric("milliseconds", "that a learner waits for those it meets"),
}


class Reading:
    """Whom a learner reads in each round, as data: see `together`."""

    def __init__(self, config: GossipConfig, place: int):
        self._config, self._place = config, place
        size = config.num_learners
        self._table = matchings(size)
        self._drawn = jax.jit(partial(matching_of, num_learners=size))

    def of(self, root: PRNGKey, round_: int) -> list[tuple[float, int]]:
        """The weight and the place of each, its own where it rests."""
        config, place, size = self._config, self._place, self._config.num_learners
        if round_ % config.interval:
            return []
        if config.kind == "ring":
            return [(1.0 / 3.0, (place - step) % size) for step in (1, -1)]
        if config.kind == "full":
            return [(1.0 / size, (place - step) % size) for step in range(1, size)]
        number = int(self._drawn(root, count_of(round_)))
        return [(0.5, int(self._table[number, place]))]


class Meeting:
    """One learner of many, alone in its process: a `Peer`."""

    def __init__(self, key: PRNGKey, system: System):
        self._key = key
        self._system = system
        self._read: list[tuple[float, int]] = []
        self._metrics: Metrics = {}

    @property
    def run(self) -> Run:
        return self._run

    def begin(self, place: int) -> Begun:
        self._place = place
        self._reading = Reading(self._system.config, place)
        started = time.perf_counter()
        where = np.int32(place)
        run = jax.jit(partial(start, self._system))(self._key, where)
        # Strong types, so that what comes back is of the same.
        strong = lambda x: jax.lax.convert_element_type(x, x.dtype)  # noqa: E731
        self._run = jax.tree.map(strong, run)
        update = partial(updated, self._system)
        self._update = jax.jit(update).lower(self._run, where).compile()
        self._meet = jax.jit(partial(_met, self._system), static_argnums=0)
        return Begun(jax.block_until_ready(self._run), time.perf_counter() - started)

    def resume(self, run: Run) -> None:
        self._run = run

    def update(self) -> tuple[int, tuple[int, ...], Parts]:
        updates = self._run.progress.updates
        round_ = int(updates.millions) * 10**6 + int(updates.units) + 1
        self._read = self._reading.of(self._run.key, round_)
        self._run, self._metrics = self._update(self._run, np.int32(self._place))
        others = tuple(place for _, place in self._read if place != self._place)
        parts = jax.block_until_ready(self._system.shared(self._run.learner))
        self._since = time.perf_counter()
        return round_, others, parts

    def meet(self, theirs: Sequence[Parts | None]) -> Metrics:
        waited = time.perf_counter() - self._since
        given, own = iter(theirs), self._system.shared(self._run.learner)
        read = [(w, next(given) if p != self._place else own) for w, p in self._read]
        found = [(weight, parts) for weight, parts in read if parts is not None]
        weights = tuple(weight for weight, _ in found)
        others = [parts for _, parts in found]
        self._run, apart = self._meet(weights, self._run, others)
        counts: Any = np.array([len(read) - len(found), len(read)], np.float32)
        return self._metrics | {
            "distance": apart,
            "missed": Mean(counts[0], counts[1]),
            "meeting_ms": np.float32(1e3 * waited),
        }


def fleet_of_learners(
    learner: Agent | Learner,
    env: Environment,
    unroll_length: int,
    config: GossipConfig,
    fleet: FleetConfig = FleetConfig(),
    *,
    patience: float = 60.0,
) -> LearnerFleetEngine | PacedFleetEngine:
    """An engine for `training.train`, which starts its processes in `init`.

    Arguments are those of `gossip`.

    Args:
      patience: seconds without a sign of a learner after which it is taken for lost.

    Raises:
      RefusedError: a config is out of range, the agent was made for other specs or
        searches for steps, or Ray is not installed.
    """
    refuse(config, fleet, unroll_length=unroll_length)
    import_ray(fleet)
    system = _system(learner, env, unroll_length, config)
    number = config.num_learners
    if config.pace == "own":
        given = OwnPace, (system,), number, Partners(system), fleet, patience
        return PacedFleetEngine(*given, config.restarts)
    return LearnerFleetEngine(Meeting, (system,), number, fleet, patience)


def repeat_recorded(
    learner: Agent | Learner,
    env: Environment,
    unroll_length: int,
    config: GossipConfig,
    record: Path,
) -> PacedReplay:
    """Repeats what learners at their own pace have done in processes, in this one.

    Arguments are those of `fleet_of_learners`.

    Raises:
      RefusedError: as `fleet_of_learners`.
      RecordError: there is no record, or it is of other learners.
    """
    system = _system(learner, env, unroll_length, config)
    return PacedReplay(system, read_turns(record))


def _system(
    learner: Agent | Learner, env: Environment, unroll_length: int, config: GossipConfig
) -> System:
    refuse(config, unroll_length=unroll_length)
    refuse_others(env)
    learner = learner_of(learner)
    rollout.refuse_other_specs(learner.actor, env)
    if config.num_learners > 1:
        loops.refuse_joint(learner, "gossip")
    return System(learner, env, unroll_length, config)


def _met(
    system: System, weights: tuple[float, ...], run: Run, theirs: list[Parts]
) -> tuple[Run, Mean]:
    """As `together`, of one learner."""
    own = system.shared(run.learner)
    moves = [(w, x, own) for w, x in zip(weights, theirs, strict=True)]
    apart = sum((distance(own, x) for x in theirs), jnp.float32(0))
    learner = system.with_shared(run.learner, moved(own, *moves))
    return run._replace(learner=learner), Mean(apart, jnp.float32(len(theirs)))
