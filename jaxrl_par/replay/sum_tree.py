"""Masses of many items, one of which is drawn with probability mass / total.

A tree of sums with sixteen children for each node: a million items are five levels.
Sums are always made anew from the children, never by adding differences: those are lost
beside large masses, and counted twice where an item is written twice.

The source of the idea, with two children: Schaul et al., arXiv:1511.05952, appendix
B.2.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.errors import refuse

_CHILDREN = 16

Masses = Float[Array, "..."]


class SumTree(NamedTuple):
    """Sums of the masses of N items."""

    levels: tuple[Float[Array, " _"], ...]
    """Items first, then the sums of each sixteen, up to sixteen that are the last.
    What fills a level up has mass 0."""

    @property
    def total(self) -> Float[Array, ""]:
        """The mass of all items."""
        return _running(self.levels[-1])[-1]


def empty(num_items: int) -> SumTree:
    """A tree for so many items, all of mass 0.

    Raises:
      ValueError: there is none.
    """
    refuse(num_items=num_items)
    levels, size = [], num_items
    while True:
        size = -(-size // _CHILDREN)
        levels.append(jnp.zeros(size * _CHILDREN, jnp.float32))
        if size == 1:
            return SumTree(tuple(levels))


def of(masses: Float[Array, " N"]) -> SumTree:
    """A tree of all these masses."""
    tree = empty(masses.shape[0])
    filler = jnp.zeros(tree.levels[0].size - masses.shape[0], jnp.float32)
    levels = [jnp.concatenate([masses, filler])]
    for level in tree.levels[1:]:
        levels.append(_summed(level, levels[-1]))
    return SumTree(tuple(levels))


def write(
    tree: SumTree,
    index: Int[Array, " K"],
    masses: Float[Array, " K"],
    accepted: Bool[Array, " K"] | bool = True,
) -> SumTree:
    """The tree with new masses, 0 or more, of those items whose are accepted.

    Of several for the same item the largest counts, in whatever order they come.
    """
    items = tree.levels[0]
    where = jnp.where(accepted, index, items.size)
    items = items.at[where].set(0.0, mode="drop").at[where].max(masses, mode="drop")
    levels = [items]
    for level in tree.levels[1:]:
        index = index // _CHILDREN
        if level.size <= index.size:  # all of them are fewer than those asked for
            levels.append(_summed(level, levels[-1]))
            continue
        sums = _running(levels[-1].reshape(-1, _CHILDREN)[index])[-1]
        levels.append(level.at[index].set(sums))
    return SumTree(tuple(levels))


def find(
    tree: SumTree,
    position: Float[Array, " K"],
    width: Float[Array, ""] | float,
    fresh: Float[Array, "levels K"],
) -> Int[Array, " K"]:
    """The items at positions 0 <= position <= total, if they lie side by side.

    Whatever is rounded, an item of mass 0 is never found, unless all are.

    Args:
      width: below this mass of a node, the place within it is drawn anew, because a
        float is too coarse for single items among very many. It is that of a stratum,
        so that each stratum still has its own draw.
      fresh: uniform in [0, 1), for those draws.
    """
    node = jnp.zeros(1, jnp.int32)  # the same for all, at first
    number = jnp.arange(_CHILDREN, dtype=jnp.int32)[:, None]
    for level, draw in zip(reversed(tree.levels), fresh, strict=True):
        ends = _ends(level.reshape(-1, _CHILDREN)[node])
        # The last child that there is mass up to, whatever the position was rounded to.
        last = jnp.sum(ends < ends[-1:], axis=0, dtype=jnp.int32)
        child = jnp.sum(ends <= position[None], axis=0, dtype=jnp.int32)
        child = jnp.minimum(child, last)
        before = jnp.max(jnp.where(number < child[None], ends, 0.0), axis=0)
        node = node * _CHILDREN + child
        mass = level[node]
        position = jnp.where(mass < width, draw * mass, position - before)
    return node


def num_levels(tree: SumTree) -> int:
    """Rows of `fresh` that `find` needs."""
    return len(tree.levels)


def strata(key: jax.Array, num_draws: int) -> Float[Array, " K"]:
    """One position in each of K equal parts of [0, 1]."""
    place = jax.random.uniform(key, (num_draws,))
    return (jnp.arange(num_draws, dtype=jnp.float32) + place) / num_draws


def _summed(level: Masses, below: Masses) -> Masses:
    """The level, with the sums of each sixteen of those below."""
    sums = _running(below.reshape(-1, _CHILDREN))[-1]
    return level.at[: sums.size].set(sums)


def _ends(children: Float[Array, "K 16"]) -> Float[Array, "16 K"]:
    """Sums of the first 1, 2, .. children.

    As a product with ones and zeros they are one kernel. All are rounded in the same
    order, in which each has more terms than the one before: so none is larger than the
    next, and one that a mass of 0 is added to stays as it is.
    """
    lower = jnp.tril(jnp.ones((_CHILDREN, _CHILDREN), jnp.float32))
    exact = jax.lax.Precision.HIGHEST
    return jax.lax.dot_general(lower, children, (((1,), (1,)), ((), ())), exact)


def _running(children: Masses) -> list[Array]:
    """Sums of the first 1, 2, .. of the last axis. One after the other, so that none is
    larger than the next, and one that a mass of 0 is added to stays as it is."""
    sums = [children[..., 0]]
    for number in range(1, children.shape[-1]):
        sums.append(sums[-1] + children[..., number])
    return sums
