"""A learner's state in k parts, each of which can be updated by itself.

Shard j has slice j of the raveled parameters, of everything in the state that has their
structure (targets, moments), and of every vector of their number, which is what
`optimizers.make_optimizer` keeps. All else, such as counters, each shard has for
itself. As an agent's `apply` works on any pytree, it works on a shard.

One thing about an update is not element by element: clipping by the norm of the whole
gradient. So each shard's gradient carries one extra element, the norm of all other
shards, and its own norm is that of the whole. The element updates a parameter that is
never read.

Source: Nair et al., arXiv:1507.04296, section 4 (after Dean et al., 2012).
"""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxrl_par.loops import Gradient, asynchronous
from jaxrl_par.loops.asynchronous import StalenessConfig
from jaxrl_par.types import Grads, Metrics, State

SCALARS = ("grad_norm", "skipped", "rejected", "stale", "outlying", "lag")
"""Metrics of `asynchronous.apply_stale`, in one array: one transfer, not one each."""


class Shards:
    """Divides states and gradients of one agent, and updates their parts."""

    def __init__(
        self,
        apply: Callable[[State, Grads, Metrics], State],
        state: State,
        grads: Grads,
        num_shards: int,
        staleness: StalenessConfig,
    ):
        """
        Args:
          apply: of the learner's halves.
          state, grads: of the learner, or their shapes.

        Raises:
          ValueError: there are more shards than parameters, or an array of the state
            is not like the parameters, so that there is no place to cut it.
        """
        self.num_shards = num_shards
        self._grads_tree = jax.tree.structure(grads)
        self._shapes = [jnp.shape(x) for x in jax.tree.leaves(grads)]
        size = sum(math.prod(shape) for shape in self._shapes)
        if not 1 <= num_shards <= size:
            raise ValueError(
                f"num_shards must be in 1 .. {size}, the number of parameters, got"
                f" {num_shards}"
            )
        cuts = np.linspace(0, size, num_shards + 1).round().astype(int).tolist()
        self._slices = [slice(a, b) for a, b in itertools.pairwise(cuts)]
        self._tree = jax.tree.structure(state, is_leaf=self._is_tree)
        parts = jax.tree.leaves_with_path(state, is_leaf=self._is_tree)
        self._wholes = [self._whole_of(part, size) for _, part in parts]
        for (path, part), whole in zip(parts, self._wholes, strict=True):
            if num_shards > 1 and not whole and jnp.ndim(part):
                raise ValueError(
                    f"state{jax.tree_util.keystr(path)}, of shape {jnp.shape(part)},"
                    " has not the structure of the parameters: it cannot be divided"
                    " among shards"
                )
        self.split = jax.jit(self._split)
        """State -> shards"""
        self.join = jax.jit(self._join)
        """shards -> state; counters are those of the first"""
        self.divide = jax.jit(self._divide)
        """gradient -> gradients of the shards"""
        self.apply = jax.jit(partial(_applied, apply, config=staleness))
        """(shard, its gradient, staleness) -> (shard, SCALARS [6])"""

    def compile(self, state: State, given: Gradient) -> None:
        """Compiles all functions. Arrays are where those that come later will be."""
        shards = self.split(state)
        for shard, part in zip(shards, self.divide(given), strict=True):
            jax.block_until_ready(self.apply(shard, part, np.int32(0)))
        jax.block_until_ready(self.join(shards))

    def _is_tree(self, part: Any) -> bool:
        """Whether it has the structure of the parameters."""
        if jax.tree.structure(part) != self._grads_tree:
            return False
        return [jnp.shape(x) for x in jax.tree.leaves(part)] == self._shapes

    def _whole_of(self, part: Any, size: int) -> Callable[[Any], Any] | None:
        """(vector) -> such a part; None where each shard has it for itself."""
        if self._is_tree(part):
            return self._unraveled
        return (lambda vector: vector) if jnp.shape(part) == (size,) else None

    def _split(self, state: State) -> list[State]:
        if self.num_shards == 1:
            return [state]
        parts = self._tree.flatten_up_to(state)
        shards = [[] for _ in self._slices]
        for part, divided in zip(parts, self._wholes, strict=True):
            whole = ravel_pytree(part)[0] if divided else None
            for shard, where in zip(shards, self._slices, strict=True):
                shard.append(part if whole is None else _extended(whole[where], 0.0))
        return [self._tree.unflatten(shard) for shard in shards]

    def _join(self, shards: list[State]) -> State:
        if self.num_shards == 1:
            return shards[0]
        columns = zip(*map(self._tree.flatten_up_to, shards), strict=True)
        parts = [
            whole(jnp.concatenate([x[:-1] for x in column])) if whole else column[0]
            for column, whole in zip(columns, self._wholes, strict=True)
        ]
        return self._tree.unflatten(parts)

    def _divide(self, given: Gradient) -> list[Gradient]:
        if self.num_shards == 1:
            return [given]
        whole = ravel_pytree(given.grads)[0]
        slices = [whole[where] for where in self._slices]
        squares = [jnp.sum(jnp.square(x)) for x in slices]
        return [
            # Not the difference from the whole, in which what is small would be lost.
            given._replace(
                grads=_extended(x, jnp.sqrt(sum(squares[:j]) + sum(squares[j + 1 :])))
            )
            for j, x in enumerate(slices)
        ]

    def _unraveled(self, vector: Float[Array, " P"]) -> Any:
        ends = np.cumsum([math.prod(shape) for shape in self._shapes])
        leaves = map(jnp.reshape, jnp.split(vector, ends[:-1]), self._shapes)
        return self._grads_tree.unflatten(leaves)


def _applied(
    apply: Callable, state: State, given: Gradient, staleness: Any, config: Any
):
    state, metrics = asynchronous.apply_stale(apply, state, given, staleness, config)
    return state, jnp.stack([metrics[name] for name in SCALARS])


def _extended(x: Float[Array, " N"], last: Any) -> Float[Array, " N+1"]:
    return jnp.append(x, jnp.asarray(last, x.dtype))
