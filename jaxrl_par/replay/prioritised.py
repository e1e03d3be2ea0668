"""Prioritised replay: windows with larger errors are drawn more often.

On a mesh each device keeps a share of the unrolls, and draws are those of all shares
together: whoever has much of the mass gives many of the windows, which then travel to
the devices that learn from them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError, refuse
from jaxrl_par.losses import of_sequences
from jaxrl_par.replay import ring, sum_tree
from jaxrl_par.replay.buffers import Buffer, refuse_sizes
from jaxrl_par.replay.priorities import (
    PriorityConfig,
    beta_after,
    mass,
    rank_masses,
)
from jaxrl_par.replay.sum_tree import SumTree
from jaxrl_par.replay.windows import Windows
from jaxrl_par.types import Count, Info, PRNGKey, State, Trajectory


class Prioritised(NamedTuple):
    """Unrolls, and the probability of each of their windows."""

    unrolls: ring.Ring
    tree: SumTree
    """Masses of the windows, those of slot 0 first."""
    largest: Float[Array, ""]
    """The largest priority that was given until now, at least 1."""
    updates: Count
    """Batches learned from since it was ready, which beta follows."""
    ranked: Float[Array, "..."]
    """Priorities of all windows where ranks decide; -1 where there is none. Else []."""


class Drawn(NamedTuple):
    """Windows of a joint batch of K, of all devices."""

    index: Int[Array, " K"]
    """In the tree of the device that has them."""
    mine: Bool[Array, " K"]
    """Whether that is this device."""
    generation: Int[Array, " K"]
    """Of their slots, when they were drawn."""
    mass: Float[Array, " K"]
    """Their masses, when they were drawn."""


def prioritised(
    capacity: int,
    batch_size: int,
    windows: Windows = Windows(),
    config: PriorityConfig = PriorityConfig(),
    *,
    min_size: int = 1,
) -> Buffer:
    """Keeps the newest unrolls, and draws windows of them by their priorities.

    Batches have importance weights in `extras["weight"]`, [L, K]. One draw falls into
    each of K equal parts of the mass. Windows whose trained rows are all `last` are
    never drawn. A priority that is not finite is not taken: the window keeps its old
    one, and a newcomer has the maximal one.

    Args:
      capacity, windows, min_size: as for `uniform`. Sizes are those of one device.
      batch_size: windows that one device learns from.

    Raises:
      ValueError: as `uniform`; or, from `init`, if priorities are not recorded that
        should be.
    """
    refuse_sizes(capacity, batch_size, windows, min_size)
    refuse(config)
    made = _Buffer(capacity, batch_size, windows, config, min_size)
    return Buffer(
        made.init, made.add, made.sample, made.update, made.ready, made.batch_rows
    )


class _Buffer(NamedTuple):
    """The functions of `Buffer`, with what `prioritised` was given."""

    capacity: int
    batch_size: int
    windows: Windows
    config: PriorityConfig
    min_size: int

    @property
    def ranks(self) -> bool:
        """Whether ranks decide, and not sizes."""
        return self.config.kind == "rank"

    def init(self, shapes: Trajectory) -> Prioritised:
        self.windows.refuse(shapes)
        if self.config.first == "recorded" and "priority" not in shapes.extras:
            raise RefusedError(
                'first priorities are to be recorded, and extras["priority"] is not'
                f" among {sorted(shapes.extras)}: take maximal ones"
            )
        unrolls = ring.empty(jax.eval_shape(self._kept, shapes), self.capacity)
        number = self.capacity * self.windows.each(shapes.reward.shape[0])
        ranked = jnp.full(number if self.ranks else 0, -1.0)
        one = jnp.float32(1.0)
        return Prioritised(unrolls, sum_tree.empty(number), one, Count.zero(), ranked)

    def _kept(self, trajectory: Trajectory) -> Trajectory:
        extras = {n: x for n, x in trajectory.extras.items() if n != "priority"}
        return self.windows.kept(trajectory._replace(extras=extras))

    def add(
        self, data: Prioritised, state: State, trajectory: Trajectory
    ) -> Prioritised:
        rows, lanes = trajectory.reward.shape
        each, trained = self.windows.each(rows), self.windows.trained(rows)

        def by_window(x: Array) -> Array:  # [trained, lanes, windows]
            return jnp.moveaxis(x.reshape(each, trained, lanes), 0, -1)

        last = by_window(trajectory.rows.last)
        priority = jnp.broadcast_to(data.largest, (lanes, each))
        if self.config.first == "recorded":
            given = of_sequences(
                by_window(trajectory.extras["priority"]), last, self.config.eta
            )
            priority = jnp.where(jnp.isfinite(given), given, priority)
        nothing = jnp.all(last, axis=0).reshape(-1)
        priority = priority.reshape(-1)
        index = data.unrolls.next * each + jnp.arange(lanes * each, dtype=jnp.int32)
        data = data._replace(
            unrolls=ring.add(data.unrolls, self._kept(trajectory)),
            largest=jnp.maximum(data.largest, jnp.max(priority)),
        )
        if self.ranks:
            given = jnp.where(nothing, -1.0, priority)
            ranked = data.ranked.at[index].set(given)
            tree = sum_tree.of(rank_masses(ranked, self.config.alpha))
            return data._replace(ranked=ranked, tree=tree)
        masses = jnp.where(nothing, 0.0, mass(priority, self.config))
        return data._replace(tree=sum_tree.write(data.tree, index, masses))

    def sample(
        self, data: Prioritised, newest: Trajectory | None, key: PRNGKey, axis: Axis
    ) -> tuple[Trajectory, Drawn]:
        drawn = _draw(data, key, self.batch_size, axis, each=self._each(data))
        masses = drawn.mass
        slot, window = drawn.index // self._each(data), drawn.index % self._each(data)
        batch = self.windows.cut(data.unrolls.items, slot, window)
        generation = data.unrolls.generation(slot)
        batch = _exchanged(batch, drawn, masses, self.batch_size, axis)
        beta = beta_after(data.updates, self.config)
        # N and the total are the same for all, and divided out.
        least = jnp.min(masses, initial=jnp.inf, where=masses > 0.0)
        weight = jnp.where(masses > 0.0, (least / masses) ** beta, 0.0)
        weight = jax.lax.dynamic_slice_in_dim(
            weight, axis.index * self.batch_size, self.batch_size
        )
        weight = jnp.broadcast_to(weight, batch.reward.shape)
        batch = batch._replace(extras=batch.extras | {"weight": weight})
        return batch, drawn._replace(generation=generation)

    def _each(self, data: Prioritised) -> int:
        return self.windows.each(data.unrolls.items.reward.shape[1])

    def update(
        self, data: Prioritised, drawn: Drawn, info: Info, axis: Axis
    ) -> Prioritised:
        if info.priorities is None:
            raise RefusedError(
                "a prioritised buffer needs Info.priorities, which this agent's grad"
                " does not give: take replay.uniform"
            )
        # Behind the gradient's own collectives.
        priority = axis.gather(axis.after(info.priorities, info.metrics))
        slot = drawn.index // self._each(data)
        same = data.unrolls.generation(slot) == drawn.generation
        learned = self.ready(data)
        taken = drawn.mine & same & jnp.isfinite(priority) & learned
        largest = jnp.max(priority, initial=0.0, where=taken)
        data = data._replace(
            largest=jnp.maximum(data.largest, largest),
            updates=data.updates.add(jnp.int32(learned)),
        )
        if self.ranks:
            size = data.ranked.size
            where = jnp.where(taken, drawn.index, size)
            ranked = data.ranked.at[where].set(0.0, mode="drop")
            return data._replace(ranked=ranked.at[where].max(priority, mode="drop"))
        masses = mass(jnp.where(taken, priority, 0.0), self.config)
        tree = sum_tree.write(data.tree, drawn.index, masses, taken)
        return data._replace(tree=tree)

    def ready(self, data: Prioritised) -> Bool[Array, ""]:
        return data.unrolls.size >= self.min_size

    def batch_rows(self, rows: int) -> int:
        return self.batch_size * self.windows.trained(rows)


def _draw(
    data: Prioritised, key: PRNGKey, batch_size: int, axis: Axis, each: int
) -> Drawn:
    """Windows of the joint batch."""
    tree, number = data.tree, batch_size * axis.size
    # All devices draw the same: with the first one's key.
    key = axis.common(key)
    strata_key, fresh_key = jax.random.split(key)
    total = axis.after(tree.total[None], jax.random.key_data(key))
    ends = jnp.cumsum(axis.gather(total))
    position = sum_tree.strata(strata_key, number) * ends[-1]
    device = jnp.sum(ends[:-1, None] <= position[None], axis=0, dtype=jnp.int32)
    before = jnp.concatenate([jnp.zeros(1), ends])[device]
    fresh = jax.random.uniform(fresh_key, (sum_tree.num_levels(tree), number))
    index = sum_tree.find(tree, position - before, ends[-1] / number, fresh)
    mass_here = tree.mass(index)
    mine = (device == axis.index) & (mass_here > 0.0)
    masses = axis.sum(jnp.where(mine, mass_here, 0.0))
    return Drawn(index, mine, jnp.zeros_like(index), masses)


def _exchanged(
    batch: Trajectory, drawn: Drawn, masses: Array, batch_size: int, axis: Axis
) -> Trajectory:
    """This device's part of the joint batch, from what each device has of it."""
    if axis.name is None:
        return batch
    leaves, structure = jax.tree.flatten(batch.lanes_first())
    rows = [_as_bytes(x) for x in leaves]
    sizes = np.cumsum([x.shape[1] for x in rows])
    # As bytes it is one sum, of zeros but for one device, which nothing is rounded in.
    mine = jnp.where(drawn.mine[:, None], jnp.concatenate(rows, axis=1), jnp.uint8(0))
    whole = axis.sum(axis.after(mine, masses))
    begin = axis.index * batch_size
    own = jax.lax.dynamic_slice_in_dim(whole, begin, batch_size)
    parts = jnp.split(own, sizes[:-1], axis=1)
    leaves = [_from_bytes(x, like) for x, like in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, leaves).time_first()


def _as_bytes(x: Array) -> Array:
    """[K, ...] as uint8 [K, N]."""
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    return jax.lax.bitcast_convert_type(x, jnp.uint8).reshape(len(x), -1)


def _from_bytes(rows: Array, like: Array) -> Array:
    """The inverse, of the dtype of `like` and its shape but for the first axis."""
    shape, size = (len(rows), *like.shape[1:]), like.dtype.itemsize
    if like.dtype == jnp.bool_:
        return rows.reshape(shape).astype(jnp.bool_)
    parts = rows.reshape(*shape, size) if size > 1 else rows.reshape(shape)
    return jax.lax.bitcast_convert_type(parts, like.dtype)
