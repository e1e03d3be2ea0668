"""Updates from the first of several workers, inside one compiled program.

The actors of `topologies.threads` with a quorum, without threads: which unrolls an
update learns from, and with which parameters they were acted, are arrays that were made
before (`loops.rounds`). Unrolls that came too late for the policy on staleness are
acted and not learned from. So what stragglers cost, and what it costs to leave them
out, is seen on any device, with any number of workers, and again with the same numbers.

With a quorum of all workers it is lockstep, bit for bit, and a run that threads or a
fleet recorded with a quorum, in pure environments, is repeated here.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxrl_par import loops, rollout
from jaxrl_par.axis import Axis
from jaxrl_par.envs import Environment
from jaxrl_par.envs.base import refuse_others
from jaxrl_par.errors import lacking, refuse, refuse_any
from jaxrl_par.loops import rounds as found_in
from jaxrl_par.loops.rounds import LEARNED, NOTHING, Rounds
from jaxrl_par.loops.run import episode_metrics
from jaxrl_par.types import (
    Agent,
    Count,
    Mean,
    Metrics,
    Params,
    PRNGKey,
    Trajectory,
)


class Local(NamedTuple):
    """What the workers have, [W, ...] each, and what there was before."""

    streams: rollout.Streams
    unroll: Count
    """Number of each one's next unroll."""
    data: Any
    """The learner's."""
    past: Params
    """The newest parameters, [S, ...], as many as the longest delay needs."""
    newest: Int[Array, ""]
    """Slot of the newest ones."""
    turn: Int[Array, ""]
    """The next one of the rounds."""
    version: Int[Array, ""]


@dataclass(frozen=True)
class _System:
    """What the program is made of, nothing of which it changes."""

    learner: loops.Learner
    env: Environment
    unroll_length: int
    rounds: Rounds
    num_workers: int

    @property
    def slots(self) -> int:
        """Parameters that are kept."""
        there = self.rounds.kind != NOTHING
        return int(np.max(self.rounds.delay, where=there, initial=0)) + 1

    @property
    def is_full(self) -> bool:
        """Whether every place of every round is learned from."""
        return bool(np.all(self.rounds.kind == LEARNED))

    def batch(self, params: Params, streams: rollout.Streams) -> Trajectory:
        """Shapes of the unrolls of a round, [Q, ...]."""
        step = jax.tree.map(lambda x: x[0], streams.step)
        actor = self.learner.actor
        one = rollout.shapes(actor, params, step, self.unroll_length)
        version = jax.ShapeDtypeStruct(one.reward.shape, jnp.int32)
        one = one._replace(extras=one.extras | {"version": version})
        number = self.rounds.quorum
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((number, *x.shape), x.dtype), one
        )


class _Acting(NamedTuple):
    """What changes from one place of a round to the next."""

    streams: rollout.Streams
    unroll: Count
    batch: Trajectory
    filled: Int[Array, ""]
    episodes: rollout.Episodes


def quorum(
    learner: Agent | loops.Learner,
    env: Environment,
    unroll_length: int,
    rounds: Rounds,
    *,
    num_workers: int,
) -> loops.Program:
    """One update in each step.

    Args:
      learner: an agent alone learns from each batch once.
      env: the environments of one worker.

    Raises:
      RefusedError: the rounds do not fit, a count is below 1, or the learner goes on
        from unroll to unroll and not all workers are in each update.
    """
    refuse(unroll_length=unroll_length, num_workers=num_workers)
    refuse_others(env)
    learner = loops.learner_of(learner)
    makes = "Rounds, as the functions of loops.rounds make"
    refuse_any(lacking(makes, "worker", "delay", "kind", rounds=rounds))
    found = found_in.problems(rounds, num_workers)
    if not found and learner.in_order and rounds.quorum != num_workers:
        found.append(
            "quorum: this learner goes on from unroll to unroll, and needs one of each"
            f" of the {num_workers} workers, got {rounds.quorum}"
        )
    refuse_any(found)
    rollout.refuse_other_specs(learner.actor, env)
    system = _System(learner, env, unroll_length, rounds, num_workers)
    return loops.Program(partial(_init, system), partial(_step, system))


def _init(system: _System, key: PRNGKey) -> loops.Run:
    learn_key, env_key, root = jax.random.split(key, 3)
    learner, num_workers = system.learner, system.num_workers

    def start(index: Int[Array, ""]) -> rollout.Streams:
        own = jax.random.fold_in(env_key, index)
        return rollout.start(learner.actor, system.env, own, index, num_workers)

    streams = jax.vmap(start)(jnp.arange(num_workers))
    state = learner.init(learn_key, jax.tree.map(lambda x: x[0], streams.step))
    params = learner.params(state)
    shapes = jax.eval_shape(_joined, system.batch(params, streams))
    past = _repeated(params, system.slots)
    unroll, zero = _repeated(Count.zero(), num_workers), jnp.int32(0)
    data = learner.start(_zeros(shapes))
    return loops.new_run(
        state, Local(streams, unroll, data, past, zero, zero, zero), root
    )


def _step(system: _System, run: loops.Run) -> tuple[loops.Run, Metrics]:
    local: Local = run.local
    arrays = tuple(map(jnp.asarray, system.rounds[:3]))
    places = jax.tree.map(lambda x: x[local.turn], arrays)
    params = system.learner.params(run.learner)
    states = jax.tree.map(lambda x: x[0], local.streams.env_state)
    nothing = rollout.none_ended(system.env, states)
    batch = _zeros(system.batch(params, local.streams))
    before = _Acting(local.streams, local.unroll, batch, jnp.int32(0), nothing)
    act = partial(_act, system, run)

    def one(acting: _Acting, place: Any) -> tuple[_Acting, None]:
        if system.is_full:
            return act(acting, *place), None
        there = place[2] != NOTHING
        return jax.lax.cond(there, lambda x: act(x, *place), lambda x: x, acting), None

    done, _ = jax.lax.scan(one, before, places)
    learn = loops.learn_from(system.learner)
    learned, metrics = learn(run._replace(local=local.data), _joined(done.batch))
    newest = (local.newest + 1) % system.slots
    local = local._replace(
        streams=done.streams,
        unroll=done.unroll,
        data=learned.local,
        past=_put(local.past, newest, system.learner.params(learned.learner)),
        newest=newest,
        turn=(local.turn + 1) % len(arrays[0]),
        version=local.version + 1,
    )
    metrics = metrics | episode_metrics(done.episodes, Axis()) | _lags(places)
    return learned._replace(local=local), metrics


def _act(
    system: _System,
    run: loops.Run,
    acting: _Acting,
    worker: Int[Array, ""],
    delay: Int[Array, ""],
    kind: Int[Array, ""],
) -> _Acting:
    """The next unroll of a worker, which becomes part of the batch or does not."""
    local: Local = run.local
    params = _at(local.past, (local.newest - delay) % system.slots)
    streams, number = _at((acting.streams, acting.unroll), worker)
    key, _ = loops.unroll_keys(run.key, number, worker)
    given = system.learner.actor, system.env, params, streams, key
    after, trajectory, episodes = rollout.unroll(*given, system.unroll_length)
    shape = trajectory.reward.shape
    version = jnp.full(shape, local.version - delay, jnp.int32)
    trajectory = trajectory._replace(extras=trajectory.extras | {"version": version})
    learned = (kind == LEARNED).astype(jnp.int32)
    # Behind the end, where nothing is written.
    slot = jnp.where(learned, acting.filled, system.rounds.quorum)
    batch = jax.tree.map(
        lambda x, y: x.at[slot].set(y, mode="drop"), acting.batch, trajectory
    )
    sums = jax.tree.map(lambda x, y: x + learned * y, acting.episodes, episodes)
    return _Acting(
        _put(acting.streams, worker, after),
        _put(acting.unroll, worker, number.add(1)),
        batch,
        acting.filled + learned,
        sums,
    )


def _lags(places: tuple[Array, Array, Array]) -> Metrics:
    """The age of what is learned from, in updates, and the unrolls that were not."""
    _, delay, kind = places
    learned = kind == LEARNED
    lags = jnp.where(learned, delay, 0).astype(jnp.float32)
    number, one = jnp.sum(learned).astype(jnp.float32), jnp.float32(1)
    dropped = jnp.sum((kind != LEARNED) & (kind != NOTHING)).astype(jnp.float32)
    return {
        "lag": Mean(jnp.sum(lags), number),
        "lag_max": Mean(jnp.max(lags), one),
        "dropped": dropped,
    }


def _joined(batch: Trajectory) -> Trajectory:
    """Unrolls [Q, ...] side by side, as one of all their environments."""
    number = batch.reward.shape[0]
    return Trajectory.join([_at(batch, i) for i in range(number)])


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _repeated(tree: Any, number: int) -> Any:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (number, *jnp.shape(x))), tree)


def _at(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def _put(tree: Any, index: Int[Array, ""], new: Any) -> Any:
    return jax.tree.map(lambda x, y: x.at[index].set(y), tree, new)
