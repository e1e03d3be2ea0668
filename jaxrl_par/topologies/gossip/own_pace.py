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

from jaxrl_par import rollout
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
from jaxrl_par.types import Count, Metrics, PRNGKey


class Local(NamedTuple):
    """What learners have, [N, ...] each."""

    streams: rollout.Streams
    data: Data
    read: Parts
    """What is averaged of each one's state, as it was when it began its unroll."""
    unroll: Count
    """Number of each one's next unroll."""
    turn: Int[Array, ""]
    """The next one of the schedule."""


def at_own_pace(system: System, schedule: Schedule) -> Program:
    """One turn of the schedule in each step; leaves of a run are [N, ...]."""
    return Program(partial(_init, system), partial(_step, system, schedule))


def _init(system: System, key: PRNGKey) -> Run:
    places = jnp.arange(system.size)
    run, streams, data = jax.vmap(system.start, (None, 0))(key, places)
    read = system.shared(run.learner)
    unroll = run.progress.updates
    return run._replace(local=Local(streams, data, read, unroll, jnp.int32(0)))


def _step(system: System, schedule: Schedule, run: Run) -> tuple[Run, Metrics]:
    local: Local = run.local
    worker = jnp.asarray(schedule.worker)[local.turn]
    state, streams, data, read, unroll, root = _at(
        (run.learner, local.streams, local.data, local.read, local.unroll, run.key),
        worker,
    )  # fmt: skip
    made = act_and_learn(
        system.learner, system.env, system.unroll_length,
        system.with_shared(state, read), streams, data, root, unroll, worker,
    )  # fmt: skip
    key = meeting_key(root, _at(run.progress.updates, worker))
    partner = _partner(system, key, worker, unroll.add(1))
    theirs_state = _at(run.learner, partner)
    ours, theirs = system.shared(state), system.shared(theirs_state)
    apart = distance(ours, theirs)
    both = moved(ours, (0.5, theirs, ours)), moved(theirs, (0.5, ours, theirs))
    ours = learned_meanwhile(both[0], system.shared(made.state), read)

    # The partner first: who meets nobody is its own.
    states = _put(run.learner, partner, system.with_shared(theirs_state, both[1]))
    states = _put(states, worker, system.with_shared(made.state, ours))
    local = Local(
        streams=_put(local.streams, worker, made.streams),
        data=_put(local.data, worker, made.data),
        read=_put(local.read, worker, ours),
        unroll=_put(local.unroll, worker, unroll.add(1)),
        turn=(local.turn + 1) % len(schedule.worker),
    )
    run = run._replace(
        learner=passed(states, made.env_steps),
        local=local,
        progress=_counted(run.progress, worker, made),
    )
    return run, made.metrics | {"distance": apart}


def _partner(
    system: System, key: PRNGKey, worker: Int[Array, ""], unrolls: Count
) -> Int[Array, ""]:
    """Whom it meets after so many unrolls of its own; itself if nobody."""
    config = system.config
    partner = partner_of(key, worker, system.size, config.kind == "ring")
    return jnp.where(is_due(unrolls, config.interval), partner, worker)


def _counted(old: Progress, worker: Int[Array, ""], made: Learned) -> Progress:
    """All count the turn, and each its own environment steps and skipped gradients."""
    own = jnp.arange(old.skipped.size) == worker
    skipped = jnp.asarray(made.metrics["skipped"], jnp.int32)
    in_a_row = jnp.where(skipped > 0, old.skipped_in_a_row + 1, 0)
    return Progress(
        updates=old.updates.add(1),
        env_steps=old.env_steps.add(jnp.where(own, made.env_steps, 0)),
        skipped=old.skipped + jnp.where(own, skipped, 0),
        skipped_in_a_row=jnp.where(own, in_a_row, old.skipped_in_a_row),
    )


def _at(tree: Any, index: Int[Array, ""]) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def _put(tree: Any, index: Int[Array, ""], new: Any) -> Any:
    return jax.tree.map(lambda x, y: x.at[index].set(y), tree, new)
