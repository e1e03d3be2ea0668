"""Writing a batch of rows into tables, as one act.

Rows of one action with equal keys are one write. A key that the table has keeps its
slot. A new one takes a slot that was never used, or that of the entry of its action
that was used least lately, the lower of equals; entries that the batch itself writes
are used now. Rows with a key or a value that is not finite are not written.

What equal keys come to is the rule's:

    best        the largest of their values, and of that which was there: MFEC
    towards     m writes move the value by 1 - (1 - alpha)^m of the way to their mean,
                as m in a row with that target would; a new key gets the mean: NEC

Neither depends on the order of the rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxrl_par.algorithms.episodic.table import Table
from jaxrl_par.errors import RefusedError


class Entries(NamedTuple):
    """M rows to be written."""

    key: Float[Array, "M D"]
    action: Int[Array, " M"]
    value: Float[Array, " M"]
    there: Bool[Array, " M"]
    """Others are no rows."""


class Writes(NamedTuple):
    """What the rows come to: G = M at most of distinct keys."""

    key: Float[Array, "G D"]
    action: Int[Array, " G"]
    """A where there is no write."""
    row: Int[Array, " G"]
    """The first row with this key."""
    number: Int[Array, " G"]
    """Rows with this key."""
    best: Float[Array, " G"]
    mean: Float[Array, " G"]


Values = Float[Array, " G"]
Rule = Callable[[Values, Bool[Array, " G"], Writes], Values]
"""(values that are there, whether a key is there, writes) -> new values"""


def best(old: Values, is_there: Bool[Array, " G"], writes: Writes) -> Values:
    """The largest ever."""
    return jnp.where(is_there, jnp.maximum(old, writes.best), writes.best)


def towards(alpha: Float[Array, ""] | float) -> Rule:
    """A part of the way to what is written."""

    def rule(old: Values, is_there: Bool[Array, " G"], writes: Writes) -> Values:
        share = 1.0 - (1.0 - alpha) ** writes.number.astype(jnp.float32)
        return jnp.where(is_there, old + share * (writes.mean - old), writes.mean)

    return rule


def written(table: Table, entries: Entries, rule: Rule) -> Table:
    """The table with the rows in it.

    Raises:
      RefusedError: a table is smaller than the batch, so that it could not keep it.
    """
    num_actions, capacity, width = table.keys.shape
    if len(entries.value) > capacity:
        raise RefusedError(
            f"capacity must be at least the {len(entries.value)} rows that are written"
            f" at a time, got {capacity}"
        )
    writes, now = _joined(entries, num_actions), table.clock + 1
    is_write = writes.action < num_actions
    own = jnp.minimum(writes.action, num_actions - 1)
    hit, slot = _found(table, writes.key, own)
    hit &= is_write
    nowhere = table.stamp.size

    def index(chosen, slot):
        return jnp.where(chosen, own * capacity + slot, nowhere)

    stamp = table.stamp.reshape(-1)
    stamp = stamp.at[index(hit, slot)].set(now, mode="drop")
    age = jnp.where(stamp > 0, (now - stamp).astype(jnp.float32), jnp.inf)
    new = _slots(age.reshape(table.stamp.shape), own, writes.row, is_write & ~hit)
    place = index(is_write, jnp.where(hit, slot, new))
    values = table.values.reshape(-1)
    value = rule(values[jnp.minimum(place, nowhere - 1)], hit, writes)

    def put(leaf: Array, new: Array) -> Array:
        return leaf.at[place].set(new, mode="drop")

    return Table(
        keys=put(table.keys.reshape(-1, width), writes.key).reshape(table.keys.shape),
        values=put(values, value).reshape(table.values.shape),
        stamp=put(stamp, jnp.full_like(place, now)).reshape(table.stamp.shape),
        clock=now,
    )


def _found(
    table: Table, key: Float[Array, "G D"], action: Int[Array, " G"]
) -> tuple[Bool[Array, " G"], Int[Array, " G"]]:
    """Whether the action has that very key, and where.

    By hashes, which cost less than distances, and know nothing of near ones."""
    match = table.there[action]
    theirs = _hashes(table.keys.reshape(-1, key.shape[1]))
    for of_table, of_key in zip(theirs, _hashes(key), strict=True):
        match &= of_table.reshape(table.stamp.shape)[action] == of_key[:, None]
    slot = jnp.argmax(match, axis=1).astype(jnp.int32)
    same = jnp.all(table.keys[action, slot] == key, axis=1)
    return same & table.there[action, slot], slot


def _slots(
    age: Float[Array, "A N"],
    action: Int[Array, " G"],
    row: Int[Array, " G"],
    is_new: Bool[Array, " G"],
) -> Int[Array, " G"]:
    """A slot for each new key in the order of the rows, the one least used first.

    Args:
      age: float32, as on CPU top_k of integers takes 50 times as long: beyond 2**24 it
        is rounded, so that old entries may be equally old. Infinite where none is.
    """
    number = min(len(action), age.shape[1])
    _, oldest = jax.lax.top_k(age, number)
    mine = jnp.zeros((len(action), len(age)), jnp.int32)
    mine = mine.at[row, action].add(is_new.astype(jnp.int32))
    before = jnp.cumsum(mine, axis=0) - mine
    return oldest[action, before[row, action]]


def _joined(entries: Entries, num_actions: int) -> Writes:
    """Rows with equal keys, as one."""
    number = len(entries.value)
    finite = jnp.isfinite(entries.value) & jnp.all(jnp.isfinite(entries.key), axis=-1)
    there = entries.there & finite
    key = jnp.where(there[:, None], entries.key, 0.0)
    action = jnp.where(there, entries.action, num_actions)
    # Equal keys have equal hashes, and are side by side once sorted. Others would have
    # to collide in 64 bits to come between them, and then they stay two writes.
    order = jnp.lexsort((*_hashes(key), action))
    key, action = key[order], action[order]
    differs = jnp.any(key[1:] != key[:-1], axis=-1) | (action[1:] != action[:-1])
    group = jnp.cumsum(jnp.concatenate([jnp.zeros(1, bool), differs]))
    first = jnp.searchsorted(group, jnp.arange(number))
    is_group = first < number
    first = jnp.minimum(first, number - 1)
    value, there = entries.value[order], there[order]
    given = {"num_segments": number, "indices_are_sorted": True}
    rows = jax.ops.segment_sum(there.astype(jnp.int32), group, **given)
    largest = jnp.where(there, value, -jnp.inf)
    largest = jax.ops.segment_max(largest, group, **given)
    total = jax.ops.segment_sum(jnp.where(there, value, 0.0), group, **given)
    return Writes(
        key=key[first],
        action=jnp.where(is_group, action[first], num_actions),
        row=order[first],
        number=rows,
        best=largest,
        mean=total / jnp.maximum(rows, 1).astype(jnp.float32),
    )


def _hashes(keys: Float[Array, "M D"]) -> tuple[UInt32[Array, " M"], ...]:
    """Two numbers for each key, the same for equal ones."""
    keys = jnp.where(keys == 0.0, 0.0, keys)  # -0 equals 0
    bits = jax.lax.bitcast_convert_type(keys, jnp.uint32)
    place = jnp.arange(keys.shape[1], dtype=jnp.uint32)[None]

    def one(odd: int, other: int) -> UInt32[Array, " M"]:
        x = (bits + place * jnp.uint32(odd)) * jnp.uint32(other)
        x = (x ^ (x >> jnp.uint32(15))) * jnp.uint32(odd)
        return jnp.sum(x ^ (x >> jnp.uint32(13)), axis=1, dtype=jnp.uint32)

    return one(0x9E3779B1, 0x85EBCA77), one(0xC2B2AE3D, 0x27D4EB2F)
