"""Lessons that are kept for a while, and a global policy that learns from them.

W workers each keep the newest R lessons of their J initial states. A synchronous
program is one worker.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxrl_par.axis import Axis
from jaxrl_par.guidance import Lessons
from jaxrl_par.loops.updates import update
from jaxrl_par.types import Agent, Mean, Metrics, PRNGKey, State


class Recent(NamedTuple):
    """The newest R lessons of J initial states."""

    lessons: Lessons
    """Leaves [*W, R, J, ...]."""
    count: Int[Array, "*W"]
    """Lessons that there were."""


def none_yet(shapes: Lessons, num_kept: int) -> Recent:
    """Room for lessons of these shapes."""
    empty = jax.tree.map(lambda x: jnp.zeros((num_kept, *x.shape), x.dtype), shapes)
    return Recent(empty, jnp.int32(0))


def kept(recent: Recent, lessons: Lessons) -> Recent:
    """With newer ones, in place of the oldest; of one worker."""
    place = recent.count % len(recent.lessons.weight)
    written = jax.tree.map(lambda x, new: x.at[place].set(new), recent.lessons, lessons)
    return Recent(written, recent.count + 1)


def own_keys(key: PRNGKey, numbers: Int[Array, "*J"]) -> Any:
    """A key of each initial state, the same wherever it is."""
    return jnp.vectorize(partial(jax.random.fold_in, key))(numbers)


def drawn(recent: Recent, keys: Any, batch_size: int) -> Lessons:
    """Rows [W * J * batch_size, ...], as many of each initial state; those of a worker
    that has no lessons yet weigh nothing.

    Args:
      keys: [W, J]
    """
    _, num_kept, _, num_rollouts, length, _ = recent.lessons.mean.shape

    def of_one(count: Array, lessons: Lessons, key: PRNGKey) -> Lessons:
        age_key, rollout_key, time_key = jax.random.split(key, 3)
        shape, known = (batch_size,), jnp.clip(count, 1, num_kept)
        age = jax.random.randint(age_key, shape, 0, known)
        one = jax.random.randint(rollout_key, shape, 0, num_rollouts)
        time = jax.random.randint(time_key, shape, 0, length)
        return Lessons(
            jax.tree.map(lambda x: x[age, one, time], lessons.obs),
            lessons.mean[age, one, time],
            lessons.precision[age, time],
            jnp.where(count > 0, lessons.weight[age, time], 0.0),
        )

    of_worker = jax.vmap(of_one, (None, 1, 0))
    rows = jax.vmap(of_worker)(recent.count, recent.lessons, keys)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), rows)


def newest(recent: Recent, worker: Int[Array, ""] | int) -> Lessons:
    """The last lessons of every worker, [W * J, ...]; of one that has none yet, those
    of `worker`."""
    num_workers, num_kept = recent.lessons.weight.shape[:2]
    who = jnp.where(recent.count > 0, jnp.arange(num_workers), worker)
    place = (recent.count[who] - 1) % num_kept
    taken = jax.tree.map(lambda x: x[who, place], recent.lessons)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), taken)


def taught(
    agent: Agent,
    state: State,
    recent: Recent,
    key: PRNGKey,
    numbers: Int[Array, "W J"],
    batch_size: int,
    num_updates: Int[Array, ""] | int,
    axis: Axis,
    worker: Int[Array, ""] | int = 0,
) -> tuple[State, Metrics]:
    """The global policy after so many updates, and with the covariance of the newest
    lessons.

    Metrics are means over the updates, but for `skipped`, their number not applied.

    Args:
      numbers: of the initial states, among those of all instances along the axis.
      worker: who has lessons.
    """

    def once(i: Array, state: State) -> tuple[State, Metrics]:
        keys = own_keys(jax.random.fold_in(key, i), numbers)
        batch = drawn(recent, keys, batch_size)
        state, info = update(agent, state, batch, key, axis)
        return state, info.metrics

    def add(i: Array, now: tuple[State, Metrics]) -> tuple[State, Metrics]:
        state, metrics = once(i, now[0])
        return state, jax.tree.map(jnp.add, now[1], metrics)

    _, shapes = jax.eval_shape(once, jnp.int32(0), state)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    state, totals = jax.lax.fori_loop(0, num_updates, add, (state, zeros))
    skipped = totals.pop("skipped")
    number = jnp.asarray(num_updates, jnp.float32)
    metrics = {name: Mean(total, number) for name, total in totals.items()}
    lessons = axis.after(newest(recent, worker), totals)
    return agent.observe(state, lessons, axis), metrics | {"skipped": skipped}
