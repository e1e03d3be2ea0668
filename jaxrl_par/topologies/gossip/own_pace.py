"""Learners at their own pace, as data: AD-PSGD in one compiled program.

A step is one turn of a schedule: a learner is done with an unroll, which it began with
what it had after its turn before. It meets one neighbour, both take the mean of what
they have now, and its own update is added to that.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxrl_par import loops, rollout
from jaxrl_par.elapsed import passed
from jaxrl_par.loops import Program, Progress, Run
from jaxrl_par.loops.learner import Data
from jaxrl_par.loops.matchings import is_due, meeting_key, partner_of
from jaxrl_par.loops.peers import (
    Learned,
    Parts,
    act_and_learn,
    distance,
    learned_meanwhile,
    moved,
)
from jaxrl_par.loops.schedules import Schedule
from jaxrl_par.topologies.gossip.system import System
from jaxrl_par.types import Count, Metrics, PRNGKey, State


class Since(NamedTuple):
    """What all others did while a learner acted and learned."""

    updates: Int[Array, "*N"]
    env_steps: Int[Array, "*N"]
    """Which the rates of the learner count when it is done."""


class Local(NamedTuple):
    """What learners have, [N, ...] each; of one of them without that axis."""

    streams: rollout.Streams
    data: Data
    read: Parts
    """What is averaged of each one's state, as it was when it began its unroll."""
    since: Since
    """Each one's unroll began."""
    unroll: Count
    """Number of each one's next unroll."""
    turn: Int[Array, "*N"]
    """The next one of the schedule, the same for all."""


def at_own_pace(system: System, schedule: Schedule) -> Program:
    """One turn of the schedule in each step; leaves of a run are [N, ...]."""
    places = jnp.arange(system.size)
    init = jax.vmap(partial(begun, system), (None, 0))
    return Program(lambda key: init(key, places), partial(_step, system, schedule))


def begun(system: System, key: PRNGKey, place: Int[Array, ""]) -> Run:
    """One learner at its start."""
    run, streams, data = system.start(key, place)
    read, zero = system.shared(run.learner), jnp.int32(0)
    unroll = run.progress.updates
    local = Local(streams, data, read, Since(zero, zero), unroll, zero)
    return run._replace(local=local)


def acted(system: System, run: Run, place: Int[Array, ""]) -> Learned:
    """What one learner gets from its next unroll, by what it had when it began it."""
    local: Local = run.local
    state = system.with_shared(run.learner, local.read)
    return act_and_learn(
        system.learner, system.env, system.unroll_length, state, local.streams,
        local.data, run.key, local.unroll, place,
    )  # fmt: skip


def halfway(system: System, state: State, theirs: Parts) -> State:
    """A learner that is met: with the mean of what both have."""
    ours = system.shared(state)
    return system.with_shared(state, moved(ours, (0.5, theirs, ours)))


def met(system: System, run: Run, made: Learned, theirs: Parts) -> tuple[Run, Metrics]:
    """One learner that is done: with the mean of what both have, and its own update
    added to that.

    Args:
      theirs: what the other one has; its own if it meets nobody.
    """
    local: Local = run.local
    ours = system.shared(run.learner)
    mean = moved(ours, (0.5, theirs, ours))
    new = learned_meanwhile(mean, system.shared(made.state), local.read)
    # Those of the others now, as the rate is of all that was acted until then.
    state = passed(made.state, local.since.env_steps + made.env_steps)
    since, zero = local.since, jnp.int32(0)
    local = local._replace(
        streams=made.streams, data=made.data, read=new, since=Since(zero, zero),
        unroll=local.unroll.add(1),
    )  # fmt: skip
    told = made.metrics | {
        "distance": distance(ours, theirs),
        "lag": jnp.float32(since.updates),
    }
    run = run._replace(learner=system.with_shared(state, new), local=local)
    return run._replace(progress=_counted(run.progress, made)), told


def partner_at(
    system: System, root: PRNGKey, turn: Count, learner: Int[Array, ""]
) -> Int[Array, ""]:
    """Whom a learner meets if a turn is its own."""
    ring = system.config.kind == "ring"
    return partner_of(meeting_key(root, turn), learner, system.size, ring)


def _step(system: System, schedule: Schedule, runs: Run) -> tuple[Run, Metrics]:
    turn = runs.local.turn[0]
    worker = jnp.asarray(schedule.worker)[turn]
    run = _at(runs, worker)
    made = acted(system, run, worker)
    drawn = partner_at(system, run.key, run.progress.updates, worker)
    due = is_due(run.local.unroll.add(1), system.config.interval)
    partner = jnp.where(due, drawn, worker)
    other = _at(runs.learner, partner)
    run, metrics = met(system, run, made, system.shared(other))
    other = halfway(system, other, system.shared(_at(runs.learner, worker)))

    # The partner first: who meets nobody is its own.
    states = _put(runs.learner, partner, other)
    runs = _put(runs._replace(learner=states), worker, run)
    own = jnp.arange(system.size) == worker
    since = runs.local.since
    since = Since(
        since.updates + jnp.where(own, 0, 1),
        since.env_steps + jnp.where(own, 0, made.env_steps),
    )
    turn = jnp.full_like(runs.local.turn, (turn + 1) % len(schedule.worker))
    updates = runs.progress.updates.add(jnp.where(own, 0, 1))
    return runs._replace(
        local=runs.local._replace(since=since, turn=turn),
        progress=runs.progress._replace(updates=updates),
    ), metrics


def _counted(old: Progress, made: Learned) -> Progress:
    return loops.count_skipped(old.counted(made.env_steps), made.metrics)


def _at(tree: Any, index: Int[Array, ""]) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def _put(tree: Any, index: Int[Array, ""], new: Any) -> Any:
    return jax.tree.map(lambda x, y: x.at[index].set(y), tree, new)
