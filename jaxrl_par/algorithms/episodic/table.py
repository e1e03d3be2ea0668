"""Tables of keys and values, one for each action, that forget what is used least.

A lookup is exact. Squared distances by a matrix product, |q|^2 + |k|^2 - 2 q.k, lose
their digits where keys are long and near each other: they choose candidates, more than
are asked for, whose distances are computed again as differences. What the product says
of all others has a known largest error. Where that neither excludes them, nor is so
small that they could only be equally far (to one part in 4096), all distances of the
query are computed as differences.

An entry takes 4 (D + 2) bytes: A N (4 D + 8) for A actions and N entries with keys of D
numbers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError, refuse

_SPARE = 8
"""Candidates beyond twice the neighbours that are asked for."""
_ROUNDING = 2.0**-24
_EQUAL = 2.0**-12
"""Squared distances that differ by a smaller share count as equal."""


class Table(NamedTuple):
    """At most N entries for each of A actions."""

    keys: Float[Array, "A N D"]
    values: Float[Array, "A N"]
    stamp: Int[Array, "A N"]
    """The clock when an entry was written or read last; 0 where there is none."""
    clock: Int[Array, ""]
    """Writes and reads until now. An integer: in float32, 2**24 + 1 is 2**24."""

    @property
    def there(self) -> Bool[Array, "A N"]:
        """Whether there is an entry."""
        return self.stamp > 0

    @property
    def count(self) -> Int[Array, " A"]:
        """Entries of each action."""
        return jnp.sum(self.there, axis=1, dtype=jnp.int32)


class Found(NamedTuple):
    """The nearest entries of C actions, all or one, in the order of their distance."""

    action: Int[Array, "1 A 1"] | Int[Array, "Q 1 1"]
    slot: Int[Array, "Q C k"]
    there: Bool[Array, "Q C k"]
    """There are so many: others are no entries."""

    def of(self, leaf: Float[Array, "A N *D"]) -> Float[Array, "Q C k *D"]:
        """What a leaf of the table has there."""
        flat = leaf.reshape(-1, *leaf.shape[2:])
        return flat[self.action * leaf.shape[1] + self.slot]

    def joined(self, axis: Axis) -> "Found":
        """Those of all instances, where they are of all actions."""
        slot, there = axis.gather((self.slot, self.there))
        return self._replace(slot=slot, there=there)


def empty(num_actions: int, capacity: int, width: int) -> Table:
    """Tables of so many entries for each action, with keys of `width` numbers.

    Raises:
      RefusedError: a number is below 1, or entries cannot be counted in 32 bits.
    """
    refuse(num_actions=num_actions, capacity=capacity, width=width)
    if num_actions * capacity >= 2**31:
        raise RefusedError(
            f"capacity must be below {2**31 // num_actions} for {num_actions} actions,"
            f" whose entries are counted in 32 bits, got {capacity}"
        )
    shape = (num_actions, capacity)
    keys = jnp.zeros((*shape, width), jnp.float32)
    values, stamp = jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.int32)
    return Table(keys, values, stamp, jnp.int32(0))


def nearest(
    table: Table,
    queries: Float[Array, "Q D"],
    k: int,
    actions: Int[Array, " Q"] | None = None,
    within: Float[Array, ""] | float = 0.0,
) -> Found:
    """The k entries nearest to each query, of all actions or, [Q, 1, k], of one each.

    No gradient flows through the choice.

    Args:
      within: squared distances that differ by less count as equal, too.

    Raises:
      RefusedError: `k` is beyond the table.
    """
    num_actions, capacity, _ = table.keys.shape
    refuse(k=k)
    if k > capacity:
        raise RefusedError(f"k must be at most the {capacity} entries, got {k}")
    keys, queries = jax.lax.stop_gradient((table.keys, queries))
    cost = _by_product(keys, table.there, queries)
    if actions is None:
        each = jnp.arange(num_actions)[None, :, None]
        action = jnp.broadcast_to(each[..., 0], cost.shape[:2])
    else:
        each, action = actions[:, None, None], actions[:, None]
        cost = jnp.take_along_axis(cost, each, axis=1)
    of = jnp.broadcast_to(jnp.arange(len(queries))[:, None], action.shape)
    rows = _Rows(keys, table.there, queries, action.reshape(-1), of.reshape(-1))
    slot, distance = _chosen(rows, cost.reshape(-1, capacity), k, within)
    slot, distance = (x.reshape(*action.shape, k) for x in (slot, distance))
    return Found(each, slot, distance < jnp.inf)


def touched(table: Table, found: Found) -> Table:
    """The table, in which those entries were read now."""
    capacity = table.values.shape[1]
    index = jnp.where(
        found.there, found.action * capacity + found.slot, table.stamp.size
    )
    now = table.clock + 1
    stamp = table.stamp.reshape(-1).at[index].set(now, mode="drop")
    return table._replace(stamp=stamp.reshape(table.stamp.shape), clock=now)


class _Rows(NamedTuple):
    """R pairs of a query and an action."""

    keys: Float[Array, "A N D"]
    there: Bool[Array, "A N"]
    queries: Float[Array, "Q D"]
    action: Int[Array, " R"]
    of: Int[Array, " R"]
    """The pair's query."""

    def squared(
        self, action: Int[Array, "*R"], of: Int[Array, "*R"], slot: Int[Array, "*R c"]
    ) -> Float[Array, "*R c"]:
        """Squared distances as differences; infinite where there is no entry."""
        number = self.there.shape[1]
        index = action[..., None] * number + slot
        near = self.keys.reshape(-1, self.keys.shape[2])[index]
        squared = jnp.sum((near - self.queries[of][..., None, :]) ** 2, axis=-1)
        return jnp.where(self.there.reshape(-1)[index], squared, jnp.inf)


def _by_product(
    keys: Float[Array, "A N D"], there: Bool[Array, "A N"], queries: Float[Array, "Q D"]
) -> Float[Array, "Q A N"]:
    """Squared distances by a product; infinite where there is no entry."""
    exact = jax.lax.Precision.HIGHEST  # accelerators round factors to 10 bits else
    # One product of matrices as they lie in memory: on CPU a batch of them is slow.
    product = jnp.matmul(queries, keys.reshape(-1, keys.shape[2]).T, precision=exact)
    product = product.reshape(len(queries), *there.shape)
    length = jnp.sum(keys**2, axis=-1)
    own = jnp.sum(queries**2, axis=-1)
    cost = own[:, None, None] + length[None] - 2.0 * product
    return jnp.where(there[None], cost, jnp.inf)


def _error(query: Float[Array, "R D"], far: Float[Array, " R"]) -> Float[Array, " R"]:
    """By how much a cost of `_by_product` may be below the squared distance, of a key
    that is not farther than `far`.

    Each sum of D products is wrong by D roundings of its terms' sizes at most, together
    2 (D + 4) u (|q|^2 + |k|^2). A key with |k|^2 > 4 (|q|^2 + far) is farther.
    """
    own = jnp.sum(query**2, axis=-1)
    return 2.0 * (query.shape[1] + 4) * _ROUNDING * (5.0 * own + 4.0 * far)


def _chosen(
    rows: _Rows, cost: Float[Array, "R N"], k: int, within: Float[Array, ""] | float
) -> tuple[Int[Array, "R k"], Float[Array, "R k"]]:
    """Slots and squared distances of the k nearest of each row."""
    capacity = cost.shape[1]
    number = min(capacity, 2 * k + _SPARE)
    costs, candidate = _smallest(cost, number)
    among, order = _smallest(rows.squared(rows.action, rows.of, candidate), k)
    slot = jnp.take_along_axis(candidate, order, axis=1)
    # Others are at least as far as the last candidate, less the product's error; and at
    # least as far as the last that was chosen, less twice that.
    far = among[:, -1]
    error = _error(rows.queries[rows.of], far)
    sure = (far <= costs[:, -1] - error) | (far == jnp.inf)
    sure |= 2.0 * error <= _EQUAL * far + within
    if number == capacity:
        return slot, among
    everyone = jnp.arange(capacity)

    def again(now):
        sure, slot, distance = now
        row = jnp.argmin(sure)
        squared = rows.squared(rows.action[row], rows.of[row], everyone)
        near, index = _smallest(squared, k)
        return (
            sure.at[row].set(True),
            slot.at[row].set(index),
            distance.at[row].set(near),
        )

    # A loop, and not a choice of one for all: mapped, this costs what the rows need.
    _, slot, among = jax.lax.while_loop(
        lambda now: ~jnp.all(now[0]), again, (sure, slot, among)
    )
    return slot, among


def _smallest(x: Float[Array, "*R N"], k: int) -> tuple[Array, Int[Array, "*R k"]]:
    negative, index = jax.lax.top_k(-x, k)
    return -negative, index
