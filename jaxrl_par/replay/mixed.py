"""Own data beside demonstrations: each element of a batch is drawn from one of both.

    demonstration ~ Bernoulli(rho)      for each of the K windows, independently
    window i      ~ P_D                 if so, else ~ P_O of the own buffer

Both have priorities of their own, which follow the errors of their own windows. Weights
make up for what priorities change, and not for rho, which is what was asked for: the
loss is to be that of rho times a uniform draw of demonstrations and 1 - rho times one
of own windows, while i is drawn with rho P_D(i) or (1 - rho) P_O(i). In their ratio rho
cancels, and N is that of i's own buffer:

    w(i) = (N_D P_D(i))^-beta or (N_O P_O(i))^-beta / max of w

with the largest in the joint batch, from whichever it comes. Relative to a uniform draw
of all N_D + N_O windows, beta = 1 would undo rho.

Demonstrations are never overwritten. They are few, so every device and worker has all
of them, and its part of the joint batch is drawn from its copy. All copies take all
new priorities, and stay equal.

Source: Paine et al., R2D3, arXiv:1909.01387, section 3.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_par.axis import Axis
from jaxrl_par.errors import RefusedError, above, below, refuse, refuse_any
from jaxrl_par.replay import ring, sum_tree
from jaxrl_par.replay.buffers import Buffer, uniform
from jaxrl_par.replay.priorities import PriorityConfig, beta_after, rank_masses
from jaxrl_par.replay.prioritised import Prioritised, prioritised
from jaxrl_par.replay.windows import Windows
from jaxrl_par.types import Carry, Info, PRNGKey, State, Trajectory

_READ = frozenset({"carry", "priority"})
"""Extras that buffers themselves read."""
_WRITTEN = frozenset({"version"})
"""Extras that are not the agent's: actors in threads say with what they acted."""


class Mixed(NamedTuple):
    """What is kept of both. Demonstrations are part of it, so that it is resumed with
    their priorities as it was, and no program has them as constants."""

    own: ring.Ring | Prioritised
    demonstrations: ring.Ring | Prioritised
    """A lane of them is one item."""


class MixedDrawn(NamedTuple):
    """Where the windows of a batch come from."""

    demonstration: Bool[Array, " K"]
    """Whether an element is a demonstration."""
    own: Any
    """K windows of the own buffer, of which those that are none were taken."""
    demonstrations: Any


def mixed(
    demonstrations: Trajectory,
    capacity: int,
    batch_size: int,
    windows: Windows = Windows(),
    config: PriorityConfig | None = None,
    *,
    ratio: float = 1 / 256,
    initial_carry: Callable[[int], Carry] = lambda num_lanes: (),
    min_size: int = 1,
) -> Buffer:
    """Keeps the newest unrolls, and draws windows of them or of demonstrations.

    Demonstrations are streams as long as they were recorded, and need not be cut into
    unrolls: their windows tile them, and burn in on the rows before. Rows at the end
    that fill no window are left out. They store no carry: their windows begin with the
    initial one. First priorities are all 1.

    Args:
      demonstrations: [N, B], of which extras and carry are not read.
      capacity, batch_size, windows, min_size: as for `uniform`. Demonstrations are not
        among the unrolls that `min_size` counts.
      config: of both priorities. None: windows of either are drawn uniformly.
      ratio: rho, the probability that an element is a demonstration.
      initial_carry: the agent's, for a network with memory.

    Raises:
      ValueError: `ratio` is not in (0, 1); as `uniform` and `prioritised`; or, from
        `init`, demonstrations are of other shapes, or too short for a window.
    """
    refuse_any(above({"ratio": ratio}, ratio=0) + below({"ratio": ratio}, ratio=1))
    refuse(*([] if config is None else [config]))

    def buffer(capacity: int, windows: Windows, config: PriorityConfig | None, **given):
        if config is None:
            return uniform(capacity, batch_size, windows, **given)
        return prioritised(capacity, batch_size, windows, config, **given)

    own = buffer(capacity, windows, config, min_size=min_size)
    # Whoever recorded them gave no priorities.
    theirs = None if config is None else replace(config, first="maximal")
    num_lanes = demonstrations.reward.shape[1]

    def fixed(length: int) -> Buffer:
        return buffer(num_lanes, replace(windows, length=length), theirs)

    given = (own, fixed, demonstrations, windows, config)
    made = _Buffer(*given, batch_size, ratio, initial_carry)
    return Buffer(
        made.init, made.add, made.sample, made.update, made.ready, own.batch_rows
    )


class _Buffer(NamedTuple):
    """The functions of `Buffer`, with what `mixed` was given."""

    own: Buffer
    fixed: Callable[[int], Buffer]
    """The demonstrations', for windows of so many trained rows."""
    given: Trajectory
    windows: Windows
    config: PriorityConfig | None
    batch_size: int
    ratio: float
    initial_carry: Callable[[int], Carry]

    def init(self, shapes: Trajectory) -> Mixed:
        own = self.own.init(_read(shapes))
        length = self.windows.trained(shapes.reward.shape[0])
        kept = streams(self.given, shapes, length, self.windows.burn_in)
        fixed = self.fixed(length)
        data = fixed.init(jax.eval_shape(lambda: kept))
        return Mixed(own, fixed.add(data, (), kept))

    def _fixed(self, data: Mixed) -> Buffer:
        own = data.own
        kept = own.unrolls if isinstance(own, Prioritised) else own
        return self.fixed(self.windows.trained(kept.items.reward.shape[1]))

    def add(self, data: Mixed, state: State, trajectory: Trajectory) -> Mixed:
        fixed = data.demonstrations
        if isinstance(fixed, Prioritised) and fixed.ranked.size and self.config:
            # Nothing is added to them, which else is when ranks are made anew.
            masses = rank_masses(fixed.ranked, self.config.alpha)
            fixed = fixed._replace(tree=sum_tree.of(masses))
        return Mixed(self.own.add(data.own, state, _read(trajectory)), fixed)

    def sample(
        self, data: Mixed, newest: Trajectory | None, key: PRNGKey, axis: Axis
    ) -> tuple[Trajectory, MixedDrawn]:
        ratio_key, own_key, fixed_key = jax.random.split(key, 3)
        own, own_drawn = self.own.sample(data.own, newest, own_key, axis)
        given = (data.demonstrations, newest, fixed_key, Axis())
        fixed, fixed_drawn = self._fixed(data).sample(*given)
        fixed = fixed._replace(carry=self.initial_carry(self.batch_size))
        # Keys of JAX draw in a loop. The unrolled rounds of ours XLA would copy to each
        # leaf that is chosen by them, and not come to an end.
        seed = jax.random.bits(ratio_key)
        ratio_key = jax.random.key(seed, impl="threefry2x32")
        chosen = jax.random.bernoulli(ratio_key, self.ratio, (self.batch_size,))
        drawn = MixedDrawn(chosen, own_drawn, fixed_drawn)

        def either(lane_axis: int, one: Array, other: Array) -> Array:
            shape = [1] * one.ndim
            shape[lane_axis] = self.batch_size
            return jnp.where(chosen.reshape(shape), other, one)

        batch = own.along_lanes(either, fixed)
        if self.config is None:
            return batch, drawn
        weight = _weights(data, drawn, self.config, own.reward, axis)
        weight = jnp.broadcast_to(weight, batch.reward.shape)
        return batch._replace(extras=batch.extras | {"weight": weight}), drawn

    def update(self, data: Mixed, drawn: MixedDrawn, info: Info, axis: Axis) -> Mixed:
        priority, chosen = info.priorities, drawn.demonstration
        if self.config is None or priority is None:
            # Uniform buffers have none, and a prioritised one says that it needs them.
            own = self.own.update(data.own, drawn.own, info, axis)
            return data._replace(own=own)
        # A buffer leaves the priority of a window as it is where none is given.
        nothing = jnp.nan
        to_own = info._replace(priorities=jnp.where(chosen, nothing, priority))
        own = self.own.update(data.own, drawn.own, to_own, axis)
        taken = chosen & self.ready(data)
        theirs = (drawn.demonstrations, jnp.where(taken, priority, nothing))
        # Behind the own buffer's collectives.
        theirs, priority = axis.gather(axis.after(theirs, own.largest))
        given = (data.demonstrations, theirs, Info({}, priority), Axis())
        return Mixed(own, self._fixed(data).update(*given))

    def ready(self, data: Mixed) -> Bool[Array, ""] | bool:
        return self.own.ready(data.own)


def _weights(
    data: Mixed, drawn: MixedDrawn, config: PriorityConfig, done: Array, axis: Axis
) -> Float[Array, " K"]:
    """(N P)^-beta, relative to the largest in the joint batch.

    Args:
      done: what the collectives here come after.
    """
    own, fixed, chosen = data.own, data.demonstrations, drawn.demonstration
    assert isinstance(own, Prioritised) and isinstance(fixed, Prioritised)

    def held(tree: sum_tree.SumTree) -> Float[Array, "2"]:  # windows, and their mass
        count = jnp.sum(tree.masses > 0.0, dtype=jnp.float32)
        return jnp.stack([count, tree.total])

    ours, theirs = axis.sum(axis.after(held(own.tree), done)), held(fixed.tree)
    begin = axis.index * chosen.size
    mass = jax.lax.dynamic_slice_in_dim(drawn.own.mass, begin, chosen.size)
    evenness = jnp.where(  # N P
        chosen,
        drawn.demonstrations.mass * theirs[0] / theirs[1],
        mass * ours[0] / ours[1],
    )
    there = evenness > 0.0
    least = jnp.min(evenness, initial=jnp.inf, where=there)
    least = -axis.max(axis.after(-least, ours))
    beta = beta_after(own.updates, config)
    return jnp.where(there, (least / evenness) ** beta, 0.0)


def streams(
    given: Trajectory, shapes: Trajectory, length: int, burn_in: int
) -> Trajectory:
    """The demonstrations as far as they fill windows of so many trained rows.

    Raises:
      RefusedError: they are of other shapes than what is acted, or too short.
    """
    for name, one, other in (
        ("observations", given.steps.obs, shapes.steps.obs),
        ("actions", given.action, shapes.action),
    ):
        theirs, ours = _kinds(one), _kinds(other)
        if theirs != ours:
            raise RefusedError(
                f"demonstrations have {name} {theirs}, and what is acted has {ours}:"
                " record them in the same environment, as the agent is to see it"
            )
    if others := sorted(shapes.extras.keys() - _READ - _WRITTEN):
        raise RefusedError(
            f"the agent learns from extras {others} of its own acting, which"
            " demonstrations do not have: take uniform or prioritised"
        )
    rows = given.reward.shape[0] // length * length
    least = length * (2 if burn_in else 1)
    if rows < least:
        raise RefusedError(
            f"demonstrations must have at least {least} rows for windows of {length}"
            f"{' with a burn-in' if burn_in else ''}, got {given.reward.shape[0]}"
        )

    def begin(number: int, tree: Any) -> Any:
        return jax.tree.map(lambda x: jnp.asarray(x[:number]), tree)

    steps = begin(rows + 1, given.steps)
    kept = begin(rows, given._replace(steps=(), extras={}, carry=()))
    return kept._replace(steps=steps)


def _read(trajectory: Trajectory) -> Trajectory:
    """With those extras alone that buffers read, as demonstrations have no others."""
    kept = {n: x for n, x in trajectory.extras.items() if n in _READ}
    return trajectory._replace(extras=kept)


def _kinds(tree: Any) -> Any:
    """dtype and shape of each leaf, without time and lanes."""
    return jax.tree.map(lambda x: f"{x.dtype}{list(x.shape[2:])}", tree)
