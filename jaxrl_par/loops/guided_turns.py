"""Guided policy search whose workers and trainer never wait for each other, as data.

W workers have some initial states each. A worker acts as long as that takes, steps its
controllers with the global policy as it then is, hands in its lessons, and acts again.
If the global policy acts, it is the one that the worker had when it began to.
The trainer goes on all the while, with the newest lessons of all workers, however old
those of some are. Who finishes when, and how many updates the trainer makes until the
next one does, is a schedule: see `loops.schedules`, whose unit of time is the mean that
a worker takes.

With one worker whose controllers act it is the synchronous program.

Source: Yahya et al., arXiv:1610.00673, section IV.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError
from jaxrl_par.guidance import GlobalPolicy
from jaxrl_par.loops.guided import (
    Local,
    Search,
    advanced,
    begin,
    numbers_of,
    policy,
    practised,
    refuse_search,
)
from jaxrl_par.loops.lessons import taught
from jaxrl_par.loops.run import Program, Run, new_run, unroll_keys
from jaxrl_par.measured import Metric
from jaxrl_par.types import Metrics, PRNGKey

METRICS = {
    "worker": Metric("number of a worker", "whose turn it was"),
    "trainer_updates": Metric("updates", "of the policy since the turn before"),
}


class Turns(NamedTuple):
    """N turns; a run of more begins them again."""

    worker: Int[np.ndarray, " N"]
    """Who has finished."""
    updates: Int[np.ndarray, " N"]
    """Of the global policy, from then until the next one has."""
    now: Float[np.ndarray, " N"]
    """When that was."""


class Workers(NamedTuple):
    """W of them, leaves [W, ...]."""

    own: Local
    held: GlobalPolicy
    """The global policy as it was when a worker's rollouts began."""


def own_pace(durations: Float[np.ndarray, "N W"], updates_per_time: int) -> Turns:
    """N turns of W workers that never wait, and of a trainer that never does.

    Args:
      durations: [n, w], the time that worker w takes for its n-th rollouts.
      updates_per_time: of the global policy, in a unit of time.
    """
    number, workers = durations.shape
    ends = np.cumsum(durations, axis=0).ravel()
    # Who is first, and among those who finish at once, in the order of workers.
    order = np.argsort(ends, kind="stable")[: number + 1]
    done = np.floor(ends[order] * updates_per_time + 1e-6).astype(np.int64)
    if len(order) == number:  # one worker, whose last turn has no next one
        done = np.append(done, done[-1] + updates_per_time)
    worker = (order[:number] % workers).astype(np.int32)
    return Turns(worker, np.diff(done).astype(np.int32), ends[order[:number]])


def guided_turns(search: Search, turns: Turns, num_workers: int) -> Program:
    """A step is a turn: a worker's controllers take a step, then the trainer learns
    until the next turn. Its updates are those of the schedule, not of `search.sizes`.

    Raises:
      RefusedError: the schedule is of other workers.
      ValueError: as `guided`.
    """
    refuse_search(search)
    if {*turns.worker.tolist()} - {*range(num_workers)}:
        raise RefusedError(
            f"a schedule for {num_workers} workers has those of 0 to {num_workers - 1},"
            f" got {turns.worker.max()}"
        )
    agent, sizes = search.agent, search.sizes
    everyone = jnp.arange(num_workers, dtype=jnp.int32)

    def init(key: PRNGKey) -> Run:
        learn_key, env_key, root = jax.random.split(key, 3)
        local = jax.vmap(lambda worker: begin(search, env_key, worker))(everyone)
        state = policy(search, learn_key, jax.tree.map(lambda x: x[0], local))
        held = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (num_workers, *x.shape)), agent.params(state)
        )
        return new_run(state, Workers(local, held), root)

    def step(run: Run) -> tuple[Run, Metrics]:
        turn = _place(run, len(turns.worker))
        worker, updates = (jnp.asarray(x)[turn] for x in turns[:2])
        act_key, learn_key = unroll_keys(run.key, run.progress.updates, 0)
        own, held = jax.tree.map(lambda x: x[worker], run.local)
        numbers = jax.vmap(lambda w: numbers_of(sizes, w))(everyone)
        now = agent.params(run.learner)
        given = search, held, now, own, act_key, numbers[worker], Axis()
        own, metrics = practised(*given)
        after = Workers(own, now)
        local = jax.tree.map(lambda x, new: x.at[worker].set(new), run.local, after)
        state, learned = taught(
            agent, run.learner, local.own.recent, learn_key, numbers,
            sizes.batch_size, updates, Axis(), worker,
        )  # fmt: skip
        told = {"worker": worker, "trainer_updates": updates}
        told = {name: x.astype(jnp.float32) for name, x in told.items()}
        return advanced(search, run, state, local, metrics | learned | told, Axis())

    return Program(init, step)


def _place(run: Run, length: int) -> Int[Array, ""]:
    """Of a step in the schedule, however many steps there were."""
    count = run.progress.updates
    return (count.millions % length * (1_000_000 % length) + count.units) % length
