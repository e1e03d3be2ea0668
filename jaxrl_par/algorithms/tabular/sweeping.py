"""Prioritised sweeping: update first what changes most, then what leads there.

    P(s, a) = |backup(s, a) - Q(s, a)|

    a real step (s, a): if P(s, a) > theta, (s, a) waits with priority P
    an update: the pair that waits with the largest priority moves to its backup, and
    every pair that is known to lead to its state waits, if its own P > theta

A pair waits once, with the largest of its priorities: the queue is a table. Priorities
are sizes of errors, and only say who is first: an update follows the error's sign.

Sources: Moore and Atkeson, Machine Learning 13 (1993); Sutton and Barto, Reinforcement
Learning, 2nd edition, section 8.4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.algorithms.tabular.experience import Experience, backups
from jaxrl_par.algorithms.tabular.mdp import ActionValues
from jaxrl_par.algorithms.tabular.tables import StepSize, Table, moved

Queue = Float[Array, "S A"]


class Sweep(NamedTuple):
    """What changes while nothing real happens."""

    table: Table
    queue: Queue
    """Priorities of the pairs that wait; 0 for all others."""
    backups: ActionValues
    """Of the table as it is."""
    updates: Int[Array, ""]
    """Made until now."""


def swept(
    table: Table,
    queue: Queue,
    model: Experience,
    tried: tuple[Int[Array, ""], Int[Array, ""]],
    rule: StepSize,
    threshold: float | Float[Array, ""],
    most: int,
) -> Sweep:
    """After at most so many updates, behind a real step that tried a pair."""
    now = Sweep(table, queue, backups(model, table.values), jnp.int32(0))
    latest = jnp.zeros_like(model.known).at[tried].set(True)
    now = now._replace(queue=_raised(now, latest, threshold))

    def once(now: Sweep, _):
        return _popped(now, model, rule, threshold), None

    return jax.lax.scan(once, now, length=most)[0]


def _popped(
    now: Sweep, model: Experience, rule: StepSize, threshold: float | Float[Array, ""]
) -> Sweep:
    """After the update of the first pair, if any waits."""
    num_actions = now.queue.shape[1]
    first = jnp.argmax(now.queue.reshape(-1)).astype(jnp.int32)
    pair = first // num_actions, first % num_actions
    waits = now.queue[pair] > 0
    table = moved(now.table, pair, now.backups[pair], rule)
    gain = jnp.max(table.values[pair[0]]) - jnp.max(now.table.values[pair[0]])
    leading = model.successors[:, :, pair[0]]
    # The backups of no other pairs change: a product for all would be S times as long.
    told = now.backups + gain * leading / jnp.where(model.known, model.weight, 1.0)
    queue = now.queue.at[pair].set(0.0)
    after = Sweep(table, queue, told, now.updates + 1)
    after = after._replace(queue=_raised(after, leading > 0, threshold))
    return jax.tree.map(lambda x, y: jnp.where(waits, x, y), after, now)


def _raised(
    now: Sweep, which: Bool[Array, "S A"], threshold: float | Float[Array, ""]
) -> Queue:
    """The queue with those of the pairs whose errors are worth an update."""
    errors = jnp.abs(now.backups - now.table.values)
    worth = which & (errors > threshold)
    return jnp.where(worth, jnp.maximum(now.queue, errors), now.queue)
