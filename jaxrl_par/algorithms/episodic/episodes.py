"""What is kept of episodes until their returns are known, for each lane a ring of rows.

When an episode ends, all its rows have their return

    R[t] = r[t] + gamma r[t+1] + gamma^2 r[t+2] + ...        to the end of the episode

and wait to be written, the oldest first, twice as many of a lane at a time as an unroll
has. So a ring of two episodes and three unrolls never loses a row: the backlog of the
longest is written before it comes round. Of a longer episode the first rows are lost.

Where a time limit ends an episode, R is what came until then: too small, and with the
largest return ever a bound that holds. A table's own value in its place would feed on
itself.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.algorithms.episodic.writing import Entries


class Rows(NamedTuple):
    """T steps of B lanes."""

    key: Float[Array, "T B D"]
    action: Int[Array, "T B"]
    reward: Float[Array, "T B"]
    last: Bool[Array, "T B"]


class Episodes(NamedTuple):
    """The newest R rows of each lane."""

    key: Float[Array, "B R D"]
    action: Int[Array, "B R"]
    return_: Float[Array, "B R"]
    """Of an open episode, the discounted rewards until now."""
    last: Bool[Array, "B R"]
    next: Int[Array, ""]
    """Where the next row goes."""
    open: Int[Array, " B"]
    """The newest rows, of the episode in progress."""
    waiting: Int[Array, " B"]
    """Those before them, which are still to be written."""
    lost: Int[Array, " B"]
    """Rows that were overwritten before they were written."""


def ring_length(longest: int, unroll_length: int) -> int:
    """R for episodes of so many steps, and the row that shows their end."""
    return 2 * (longest + 1) + 3 * unroll_length


def start(num_lanes: int, length: int, width: int) -> Episodes:
    """Nothing yet."""
    shape, zeros = (num_lanes, length), jnp.zeros(num_lanes, jnp.int32)
    return Episodes(
        key=jnp.zeros((*shape, width), jnp.float32),
        action=jnp.zeros(shape, jnp.int32),
        return_=jnp.zeros(shape, jnp.float32),
        last=jnp.zeros(shape, bool),
        next=jnp.int32(0),
        open=zeros,
        waiting=zeros,
        lost=zeros,
    )


def pushed(kept: Episodes, rows: Rows, gamma: Float[Array, ""] | float) -> Episodes:
    """With T more rows of each lane."""
    number, length = len(rows.reward), kept.return_.shape[1]
    returns = _returns(rows, gamma)
    age = (
        kept.next - 1 - jnp.arange(length, dtype=jnp.int32)
    ) % length  # 0 is the newest
    is_open = age[None] < kept.open[:, None]
    factor = jnp.asarray(gamma, jnp.float32) ** (age + 1).astype(jnp.float32)
    more = jnp.where(is_open, factor[None] * returns[0][:, None], 0.0)
    row = jnp.arange(number, dtype=jnp.int32)
    place = (kept.next + row) % length

    def put(ring: Array, new: Array) -> Array:
        return ring.at[:, place].set(jnp.swapaxes(new, 0, 1))

    end = jnp.max(jnp.where(rows.last, row[:, None] + 1, 0), axis=0)
    ended = end > 0
    open_ = jnp.where(ended, 0, kept.open) + number - end
    waiting = kept.waiting + jnp.where(ended, kept.open + end, 0)
    lost = jnp.maximum(open_ + waiting - length, 0)
    of_waiting = jnp.minimum(lost, waiting)
    return Episodes(
        key=put(kept.key, rows.key),
        action=put(kept.action, rows.action),
        return_=put(kept.return_ + more, returns),
        last=put(kept.last, rows.last),
        next=(kept.next + number) % length,
        open=open_ - (lost - of_waiting),
        waiting=waiting - of_waiting,
        lost=kept.lost + lost,
    )


def due(kept: Episodes, number: int) -> tuple[Entries, Episodes]:
    """The oldest rows of each lane that wait, B times `number` at most, lanes first:
    so that those of several devices, joined, are in the order of one. And the rest."""
    length, taken = kept.return_.shape[1], jnp.minimum(kept.waiting, number)
    begin = kept.next - kept.open - kept.waiting
    ahead = jnp.arange(number, dtype=jnp.int32)[None]
    place = (begin[:, None] + ahead) % length
    lane = jnp.arange(len(place))[:, None]
    there = (ahead < taken[:, None]) & ~kept.last[lane, place]
    entries = Entries(
        kept.key[lane, place],
        kept.action[lane, place],
        kept.return_[lane, place],
        there,
    )
    entries = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), entries)
    return entries, kept._replace(waiting=kept.waiting - taken)


def _returns(rows: Rows, gamma: Float[Array, ""] | float) -> Float[Array, "T B"]:
    """Discounted rewards until the episode's end, or that of the rows."""

    def backwards(after, row):
        reward, last = row
        now = jnp.where(last, 0.0, reward + gamma * after)
        return now, now

    zeros = jnp.zeros_like(rows.reward[0])
    given = (rows.reward, rows.last)
    _, returns = jax.lax.scan(backwards, zeros, given, reverse=True)
    return returns
