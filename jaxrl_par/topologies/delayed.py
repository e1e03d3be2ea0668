"""Asynchrony as data: late gradients inside one compiled program, bit for bit again.

Which worker finishes next, and how old the parameters are that it had read, is a
schedule, an array. A step of the program is one turn of it: the worker acts with the
old parameters in its own environments, and its gradient is applied to the newest ones.
So A3C, Gorila and Hogwild's stale reads are studied on any device, with any number of
workers, and the same schedule gives the same numbers. What this leaves out is races:
see `topologies.workers` for real threads.

With one worker and no delay it is the synchronous program, bit for bit. Schedules may
be traced, so a `population` over delays is one program.

Sources: Mnih et al., arXiv:1602.01783; Nair et al., arXiv:1507.04296.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxrl_par import loops, rollout
from jaxrl_par.axis import Axis
from jaxrl_par.envs import Environment
from jaxrl_par.envs.base import refuse_others
from jaxrl_par.errors import refuse, refuse_any
from jaxrl_par.loops import Gradient, asynchronous, outliers, schedules
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.loops.delays import Storage
from jaxrl_par.loops.learner import Data
from jaxrl_par.loops.outliers import OutlierConfig
from jaxrl_par.loops.schedules import Schedule, own_copies
from jaxrl_par.types import Agent, Count, Metrics, PRNGKey, State


class Past(NamedTuple):
    """Parameters that some worker still has to use, in slots [S]."""

    leaves: list[Array]
    """Leaves of the agent's state that acting and gradients read."""
    version: Int[Array, " S"]
    """Updates that were applied until then, modulo 2**32."""


class Local(NamedTuple):
    """What the workers have, [W, ...] each, and what they have read."""

    streams: rollout.Streams
    data: Data
    """The learner's, of each worker; without that axis where all share it."""
    losses: Any
    """`outliers.judged` keeps them where it rejects."""
    unroll: Count
    """Number of each one's next unroll."""
    past: Past
    newest: Int[Array, ""]
    """Slot of the ring with the newest parameters; 0 where each worker has a copy."""
    turn: Int[Array, ""]
    """The next one of the schedule."""
    version: Int[Array, ""]


@dataclass(frozen=True)
class _System:
    """What the program is made of, nothing of which it changes."""

    learner: loops.Learner
    halves: loops.Halves
    env: Environment
    unroll_length: int
    schedule: Schedule
    num_workers: int
    max_delay: int
    copies: bool
    """Each worker has one, in place of a ring."""
    stale: Literal["gradients", "data"]
    staleness: StalenessConfig
    outliers: OutlierConfig
    share_data: bool

    @property
    def slots(self) -> int:
        """Parameters that are kept."""
        return self.num_workers if self.copies else self.max_delay + 1

    def take_turn(self, state: State, newest: State, *rest: Any) -> asynchronous.Turn:
        learning = newest if self.stale == "data" else state
        return asynchronous.turn(
            self.learner, self.env, self.unroll_length, state, learning, *rest
        )

    def reads(self, state: State, *own: Any) -> list[bool]:
        """Which leaves of the state a turn reads, with streams, data and the root."""
        rest = (*own, Count.zero(), jnp.int32(0))
        return asynchronous.parts_read(self.take_turn, state, state, *rest)


def delayed(
    learner: Agent | loops.Learner,
    env: Environment,
    unroll_length: int,
    schedule: Schedule,
    *,
    num_workers: int,
    max_delay: int | None = None,
    storage: Storage = "ring",
    stale: Literal["gradients", "data"] = "gradients",
    staleness: StalenessConfig = StalenessConfig(),
    outliers: OutlierConfig = OutlierConfig(),
    share_data: bool = False,
) -> loops.Program:
    """One turn of the schedule in each step.

    Args:
      learner: has halves; an agent alone learns from each trajectory once.
      env: the environments of one worker.
      max_delay: largest delay of the schedule, needed if that is traced. A traced turn
        that does not fit gives a gradient that is not finite, which is skipped.
      storage: ring keeps the last `max_delay` + 1 parameters, copies one for each
        worker. They give the same numbers; take what needs less memory. Copies are for
        schedules in which each worker reads when it has finished.
      stale: what is computed with old parameters. gradients: all, as by A3C's workers.
        data: only the actions, as by IMPALA's actors; the gradient is at the newest.
      share_data: all workers have one replay, in which a turn finds what all turns
        before it have acted: Gorila's global one. By default each has its own.

    Raises:
      ValueError: the schedule does not fit, a count is below 1, or there are no halves.
    """
    sizes = {"unroll_length": unroll_length, "num_workers": num_workers}
    refuse(staleness, outliers, **sizes)
    refuse_others(env)
    refuse_any(schedules.not_a_schedule(schedule))
    if max_delay is None:
        if schedule.traced:
            raise ValueError("a traced schedule needs max_delay")
        max_delay = int(np.max(schedule.delay, initial=0))
    found = schedules.problems(schedule, num_workers, max_delay)
    copies = storage == "copies"
    if not found and copies and (schedule.traced or not own_copies(schedule)):
        found.append(
            "storage = copies is for a known schedule in which each worker reads the"
            " newest parameters when it has finished; this one needs a ring"
        )
    refuse_any(found)
    learner = loops.learner_of(learner)
    rollout.refuse_other_specs(learner.actor, env)
    bound: Any = staleness.max_staleness  # traced, where a population is of it
    known = isinstance(bound, int)
    only_fresh = staleness.rule == "reject" and known and bound == 0
    if max_delay > 0 and stale == "gradients" and not only_fresh:
        loops.refuse_joint(learner, "delayed")
    system = _System(
        learner, loops.halves_of(learner, "delayed"), env, unroll_length, schedule,
        num_workers, max_delay, copies, stale, staleness, outliers, share_data,
    )  # fmt: skip
    return loops.Program(partial(_init, system), partial(_step, system))


def _init(system: _System, key: PRNGKey) -> loops.Run:
    learn_key, env_key, root = jax.random.split(key, 3)
    learner, num_workers = system.learner, system.num_workers

    def start(index: Int[Array, ""]) -> rollout.Streams:
        own = jax.random.fold_in(env_key, index)
        return rollout.start(learner.actor, system.env, own, index, num_workers)

    streams = jax.vmap(start)(jnp.arange(num_workers))
    one = jax.tree.map(lambda x: x[0], streams)
    state = learner.init(learn_key, one.step)
    params = learner.params(state)
    shapes = rollout.shapes(learner.actor, params, one.step, system.unroll_length)
    data = learner.start(shapes)
    leaves = _chosen(state, system.reads(state, one, data, root))
    zero = jnp.int32(0)
    past = _repeated(Past(leaves, zero), system.slots)
    own = outliers.start(system.outliers), Count.zero()
    losses, unroll = _repeated(own, num_workers)
    data = data if system.share_data else _repeated(data, num_workers)
    local = Local(streams, data, losses, unroll, past, zero, zero, zero)
    return loops.new_run(state, local, root)


def _step(system: _System, run: loops.Run) -> tuple[loops.Run, Metrics]:
    local: Local = run.local
    worker, delay = _at(jax.tree.map(jnp.asarray, system.schedule), local.turn)
    own = local.streams, local.losses, local.unroll
    streams, losses, unroll = _at(own, worker)
    data = local.data if system.share_data else _at(local.data, worker)
    mask = system.reads(run.learner, streams, data, run.key)
    slot = worker if system.copies else (local.newest - delay) % system.slots
    past = _at(local.past, slot)
    old = _replaced(run.learner, mask, past.leaves)

    done = system.take_turn(old, run.learner, streams, data, run.key, unroll, worker)
    given = _fitting(system, done.gradient, worker, delay)
    losses, given = outliers.judged(losses, given, system.outliers)
    put_data = done.data if system.share_data else _put(local.data, worker, done.data)
    # Statistics of the data have no gradient: they are of all that came until now.
    state = system.halves.observe(run.learner, done.trajectory, Axis())
    state, applied = asynchronous.apply_stale(
        system.halves.apply, state, given, local.version - past.version,
        system.staleness,
    )  # fmt: skip
    metrics = given.metrics | applied
    refused = (applied["skipped"] > 0) | (applied["rejected"] > 0)
    version = local.version + 1 - refused.astype(jnp.int32)

    local = local._replace(
        streams=_put(local.streams, worker, done.streams),
        data=put_data,
        losses=_put(local.losses, worker, losses),
        unroll=_put(local.unroll, worker, unroll.add(1)),
        turn=(local.turn + 1) % len(system.schedule.worker),
        version=version,
    )
    local = _kept(system, local, worker, Past(_chosen(state, mask), version))
    progress = loops.count_skipped(run.progress.counted(given.env_steps), metrics)
    return run._replace(learner=state, local=local, progress=progress), metrics


def _fitting(
    system: _System, given: Gradient, worker: Int[Array, ""], delay: Int[Array, ""]
) -> Gradient:
    """The gradient, not finite where a traced turn does not fit."""
    if not system.schedule.traced:
        return given
    fits = (worker >= 0) & (worker < system.num_workers)
    fits &= (delay >= 0) & (delay <= system.max_delay)
    grads = jax.tree.map(lambda x: jnp.where(fits, x, jnp.nan), given.grads)
    return given._replace(grads=grads)


def _kept(system: _System, local: Local, worker: Int[Array, ""], new: Past) -> Local:
    """The newest parameters are kept, for workers that read them in a later turn."""
    if not system.copies:
        newest = (local.newest + 1) % system.slots
        return local._replace(past=_put(local.past, newest, new), newest=newest)
    # Where the schedule begins again, all workers read.
    past = jax.lax.cond(
        local.turn == 0,
        lambda: _repeated(new, system.slots),
        lambda: _put(local.past, worker, new),
    )
    return local._replace(past=past)


def _chosen(state: State, mask: list[bool]) -> list[Array]:
    return [x for x, read in zip(jax.tree.leaves(state), mask, strict=True) if read]


def _replaced(state: State, mask: list[bool], leaves: list[Array]) -> State:
    new = iter(leaves)
    old, tree = jax.tree.flatten(state)
    return tree.unflatten(
        [next(new) if read else x for x, read in zip(old, mask, strict=True)]
    )


def _repeated(tree: Any, number: int) -> Any:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (number, *jnp.shape(x))), tree)


def _at(tree: Any, index: Int[Array, ""]) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def _put(tree: Any, index: Int[Array, ""], new: Any) -> Any:
    return jax.tree.map(lambda x, y: x.at[index].set(y), tree, new)
