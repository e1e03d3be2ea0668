"""Where the instances of a program meet: the devices of a mesh, or a mapped axis."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree


@dataclass(frozen=True)
class Axis:
    """The axis along which a program has instances; `Axis()` is a program alone.

    The same under `jit`, `vmap(axis_name=...)`, `pmap` and `shard_map`.
    """

    name: str | None = None
    """The mapped axis. Without one, reductions give the tree itself."""

    @property
    def index(self) -> Int[Array, ""] | int:
        """The number of this instance."""
        return 0 if self.name is None else jax.lax.axis_index(self.name)

    @property
    def size(self) -> int:
        """Instances that there are."""
        return 1 if self.name is None else jax.lax.axis_size(self.name)

    def mean(self, tree: PyTree) -> PyTree:
        """The mean over all instances, leaf by leaf."""
        if self._in_order:
            return jax.tree.map(lambda x: x / self.size, self.sum(tree))
        return self._reduced(jax.lax.pmean, tree)

    def sum(self, tree: PyTree) -> PyTree:
        """The sum over all instances, leaf by leaf."""
        if self._in_order:
            return _sum_in_order(tree, self.name)
        return self._reduced(jax.lax.psum, tree)

    def max(self, tree: PyTree) -> PyTree:
        """The maximum over all instances, element by element."""
        return self._reduced(jax.lax.pmax, tree)

    def gather(self, tree: PyTree) -> PyTree:
        """Leaves [size * N, ...], those [N, ...] of all instances in their order."""
        return self._reduced(partial(jax.lax.all_gather, tiled=True), tree)

    def own(self, key: Key[Array, ""]) -> Key[Array, ""]:
        """A key of this instance alone.

        A program without a name folds its index, 0, too: so it draws what one device
        of a mesh, one actor or one worker draws.
        """
        return jax.random.fold_in(key, self.index)

    def common(self, key: Key[Array, ""], done: PyTree = 0.0) -> Key[Array, ""]:
        """The first instance's key, for what all draw alike.

        Args:
          done: as for `after`.
        """
        data = self.after(jax.random.key_data(key)[None], done)
        first = self.gather(data)[0]
        return jax.random.wrap_key_data(first, impl=jax.random.key_impl(key))

    def apart(self, tree: PyTree) -> PyTree:
        """The tree, unchanged, but of this instance alone: no longer known to be equal.

        Under `shard_map` with its default `check_vma=True`, JAX sums gradients with
        respect to what is equal on all devices over them by itself, and a mean after
        that sum would be too large by their number, which Adam hides. Gradients with
        respect to what is apart are those of the instance, as everywhere else.
        """
        if self.name not in jax.sharding.get_abstract_mesh().manual_axes:
            return tree

        def one(x: Array) -> Array:
            varies = self.name in jax.typeof(x).manual_axis_type.varying
            return x if varies else jax.lax.pcast(x, self.name, to="varying")

        return jax.tree.map(one, tree)

    def after(self, tree: PyTree, done: PyTree) -> PyTree:
        """The tree, unchanged, but computed only when the floats in `done` are.

        For whatever leads to a reduction beside a loop that has some too. On CPU jaxlib
        gives all collectives of a program one channel, and what does not depend on a
        loop runs at the same time: devices then meet in different collectives, and the
        process ends. Only a dependency that XLA cannot see through keeps them in order.
        """
        if self.name is None:
            return tree
        leaves = jax.tree.leaves(done)
        total = sum(jnp.sum(jnp.asarray(x, jnp.float32)) for x in leaves)
        never = (total > 1.0) & (total < 0.0)
        return jax.tree.map(lambda x: jnp.where(never, jnp.zeros_like(x), x), tree)

    @property
    def _in_order(self) -> bool:
        """Whether sums are to be made here: between processes on CPU, gloo adds in
        another order than the devices of one process do."""
        several = jax.distributed.is_initialized() and jax.process_count() > 1
        named = self.name is not None
        return named and several and jax.default_backend() == "cpu"

    def _reduced(self, collective: Callable[[PyTree, Any], PyTree], tree: PyTree):
        return tree if self.name is None else collective(tree, self.name)


def _sum_in_order(tree: PyTree, name: str | None) -> PyTree:
    """The sums over the instances, the first one's first: one gather for all leaves of
    a dtype, because each costs a way through the network."""
    leaves, structure = jax.tree.flatten(tree)
    leaves = [jnp.asarray(x) for x in leaves]
    sums: dict[int, Array] = {}
    for dtype in dict.fromkeys(x.dtype for x in leaves):
        places = [i for i, x in enumerate(leaves) if x.dtype == dtype]
        flat = jnp.concatenate([leaves[i].reshape(-1) for i in places])
        rows = jax.lax.all_gather(flat, name)
        total = rows[0]
        for row in rows[1:]:
            total = total + row
        ends = np.cumsum([leaves[i].size for i in places])[:-1]
        parts = jnp.split(total, ends)
        for i, part in zip(places, parts, strict=True):
            sums[i] = part.reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, [sums[i] for i in range(len(leaves))])
