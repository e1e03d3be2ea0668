"""Masses of many items, one of which is drawn with probability mass / total.

A tree of sums with eight children for each node: a million items are seven levels. Sums
are always made anew from the children, never by adding differences: those are lost
beside large masses, and counted twice where an item is written twice.

Nodes are numbered level by level, from the root on: node i has the children 8 i + 1 to
8 i + 8. The items come last, so they are on one or two levels. From left to right the
lower level is first: a few of the last items lie before the others.

The source of the idea, with two children: Schaul et al., arXiv:1511.05952, appendix
B.2.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.errors import refuse

_CHILDREN = 8

Masses = Float[Array, "..."]


class SumTree(NamedTuple):
    """Sums of the masses of N items."""

    nodes: Float[Array, "nodes 8"]
    """The masses of the children of each node that is no item. One array of all levels,
    so that a loop can go down, and is what has the items as well."""

    @property
    def total(self) -> Float[Array, ""]:
        """The mass of all items."""
        return _running(self.nodes[0])[-1]

    @property
    def masses(self) -> Float[Array, " N"]:
        """The mass of each item, and 0 for up to six that fill the tree up."""
        return self.nodes.reshape(-1)[len(self.nodes) - 1 :]

    def mass(self, index: Int[Array, " K"]) -> Float[Array, " K"]:
        """Those of some items."""
        return self.nodes.reshape(-1)[len(self.nodes) - 1 + index]


def empty(num_items: int) -> SumTree:
    """A tree for so many items, all of mass 0.

    Raises:
      ValueError: there is none.
    """
    refuse(num_items=num_items)
    # Each node but the root is a child, so there are 7 items for each, and one more.
    num_nodes = max(-(-(num_items - 1) // (_CHILDREN - 1)), 1)
    return SumTree(jnp.zeros((num_nodes, _CHILDREN), jnp.float32))


def of(masses: Float[Array, " N"]) -> SumTree:
    """A tree of all these masses."""
    tree = empty(masses.shape[0])
    num_nodes = len(tree.nodes)
    filler = jnp.zeros(tree.masses.size - masses.shape[0], jnp.float32)
    masses = jnp.concatenate([masses, filler])
    bottom = num_levels(tree)
    higher = _first(bottom) - num_nodes  # items that are a level above the others
    top = _above(masses[higher:], bottom, masses[:higher])
    nodes = jnp.concatenate([top, masses[higher:]])
    return SumTree(nodes.reshape(-1, _CHILDREN))


def write(
    tree: SumTree,
    index: Int[Array, " K"],
    masses: Float[Array, " K"],
    accepted: Bool[Array, " K"] | bool = True,
) -> SumTree:
    """The tree with new masses, 0 or more, of those items whose are accepted.

    Of several for the same item the largest counts, in whatever order they come.
    """
    flat, num_nodes = tree.nodes.reshape(-1), len(tree.nodes)
    node = num_nodes + index
    where = jnp.where(accepted, node - 1, flat.size)
    flat = flat.at[where].set(0.0, mode="drop").at[where].max(masses, mode="drop")
    bottom = num_levels(tree)
    for level in range(bottom - 1, 0, -1):
        begin, end = _first(level), _first(level + 1)
        nodes = flat.reshape(-1, _CHILDREN)
        if level < bottom - 1 and end - begin <= index.size:
            # All of them are fewer than those asked for.
            top = _above(nodes[begin:end].reshape(-1), level + 1, flat[:0])
            # As a slice it would be written where it is read, so XLA would copy all.
            flat = flat.at[jnp.arange(top.size)].set(top)
            break
        # Above an item of the higher level these are nodes of the level above. They
        # are summed again where something lower was written, and so right in the end.
        node = (node - 1) // _CHILDREN
        sums = _running(nodes[node])[-1]
        flat = flat.at[jnp.where(node > 0, node - 1, flat.size)].set(sums, mode="drop")
    return SumTree(flat.reshape(-1, _CHILDREN))


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
    num_nodes = len(tree.nodes)

    # A loop, because XLA would put a step after another one into the same kernel, which
    # then finds the node again for each of its children.
    def descend(level: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        node, position = found
        children = tree.nodes[jnp.minimum(node, num_nodes - 1)]
        child, within, mass = _child(children, position)
        within = jnp.where(mass < width, fresh[level] * mass, within)
        below = _CHILDREN * node + 1 + child
        return jnp.where(node < num_nodes, below, node), within

    root = jnp.zeros(position.shape, jnp.int32)
    levels = num_levels(tree)
    node, _ = jax.lax.fori_loop(0, levels, descend, (root, position))
    return node - num_nodes


def num_levels(tree: SumTree) -> int:
    """Steps from the root to the lowest items, rows of `fresh` that `find` needs."""
    level = 1
    while _first(level + 1) <= len(tree.nodes) * _CHILDREN:
        level += 1
    return level


def strata(key: jax.Array, num_draws: int) -> Float[Array, " K"]:
    """One position in each of K equal parts of [0, 1]."""
    place = jax.random.uniform(key, (num_draws,))
    return (jnp.arange(num_draws, dtype=jnp.float32) + place) / num_draws


def _first(level: int) -> int:
    """The first node of a level; that of the root is 0."""
    return (_CHILDREN**level - 1) // (_CHILDREN - 1)


def _above(masses: Masses, level: int, beside: Masses) -> Masses:
    """The masses of all nodes above those of a level, but for the root.

    Args:
      beside: what is to the right of their parents.
    """
    levels = []
    for _ in range(level - 1):
        sums = _running(masses.reshape(-1, _CHILDREN))[-1]
        masses, beside = jnp.concatenate([sums, beside]), beside[:0]
        levels.insert(0, masses)
    return jnp.concatenate([beside, *levels])  # nothing is beside the root


def _child(
    children: Float[Array, "K 8"], position: Float[Array, " K"]
) -> tuple[Int[Array, " K"], Float[Array, " K"], Float[Array, " K"]]:
    """Which of the children lies at the position, the position within it, its mass."""
    ends, mass = _running(children), children[:, 0]
    child, before = jnp.zeros_like(position, jnp.int32), jnp.zeros_like(position)
    for number, end in enumerate(ends[:-1], start=1):
        # Never behind the last child with a mass, wherever the position is rounded.
        beyond = (end <= position) & (end < ends[-1])
        child, before = jnp.where(beyond, number, child), jnp.where(beyond, end, before)
        mass = jnp.where(beyond, children[:, number], mass)
    return child, position - before, mass


def _running(children: Masses) -> list[Array]:
    """Sums of the first 1, 2, .. of the last axis. One after the other, so that none is
    larger than the next, and one that a mass of 0 is added to stays as it is."""
    sums = [children[..., 0]]
    for number in range(1, children.shape[-1]):
        sums.append(sums[-1] + children[..., number])
    return sums
