"""Networks on windows from replay, whose memory began somewhere before them.

A window has rows [burn-in | trained | lookahead], as `replay.Windows` cuts them. On the
burn-in each network refreshes its own memory, without a gradient. The memory before the
window is what was stored when it was acted, with the parameters of then, or empty.

Source: Kapturowski et al., R2D2 (ICLR 2019), sections 2.3 and 3.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_par.measured import Metric
from jaxrl_par.networks import Network
from jaxrl_par.returns import at_rows
from jaxrl_par.types import Carry, Mean, Params, TimeStep

METRICS = {
    "staleness_*": Metric(
        "share of the largest value",
        "by how much values with today's memory differ from those with "
        "the memory of acting, in the first and last row",
    ),
}


class Windows(NamedTuple):
    """What networks read."""

    steps: TimeStep
    """[burn-in + trained + lookahead + 1, K]"""
    memory: Carry
    """[K, ...], before the first of them."""
    burn_in: int = 0
    padded: Bool[Array, " K"] | None = None
    """With a burn-in: whether there are no rows before the trained ones, because an
    unroll begins with them. Memory is then that before them."""

    @property
    def after(self) -> TimeStep:
        """The steps behind the burn-in."""
        return jax.tree.map(lambda x: x[self.burn_in :], self.steps)


class Outputs(NamedTuple):
    """What both networks make of windows."""

    online: Float[Array, "L K *A"]
    """In the trained rows."""
    choosing_ahead: Float[Array, "L K *A"]
    """In the rows that their targets bootstrap from, of the network that chooses the
    action there."""
    target_ahead: Float[Array, "L K *A"]


def of_both(
    network: Network,
    online: Params,
    target: Params,
    windows: Windows,
    index: Int[Array, "L K"],
    double: bool,
) -> Outputs:
    """Outputs in the L trained rows, and in the rows `index`, counted from the first of
    them.

    Args:
      double: whether the online network chooses there.
    """
    rows, memory, steps = index.shape[0], windows.memory, windows.after
    if not jax.tree.leaves(memory):
        # No row depends on those before: only what is used is computed.
        ahead = at_rows(steps, index)
        trained = jax.tree.map(lambda x: x[:rows], steps)
        outputs, _ = network.unroll(online, memory, trained)
        target_ahead, _ = network.unroll(target, memory, ahead)
        if not double:
            return Outputs(outputs, target_ahead, target_ahead)
        # Apart from the trained rows: of these no gradient is computed.
        choosing, _ = network.unroll(jax.lax.stop_gradient(online), memory, ahead)
        return Outputs(outputs, choosing, target_ahead)
    outputs, _ = network.unroll(online, burned(network, online, windows), steps)
    target_outputs, _ = network.unroll(target, burned(network, target, windows), steps)
    target_ahead = at_rows(target_outputs, index)
    choosing = at_rows(outputs, index) if double else target_ahead
    return Outputs(outputs[:rows], choosing, target_ahead)


def burned(network: Network, params: Params, windows: Windows) -> Carry:
    """Memory before the first trained row."""
    if not windows.burn_in:
        return windows.memory
    steps = jax.tree.map(lambda x: x[: windows.burn_in], windows.steps)
    _, after = network.unroll(params, windows.memory, steps)
    padded = windows.padded
    assert padded is not None

    def chosen(before: Array, after: Array) -> Array:
        where = padded.reshape(-1, *[1] * (before.ndim - 1))
        return jnp.where(where, before, jax.lax.stop_gradient(after))

    return jax.tree.map(chosen, windows.memory, after)


def staleness(
    apply: Callable[[Carry, TimeStep], Float[Array, "K A"]],
    values: Float[Array, "L K A"],
    acted: Carry,
    steps: TimeStep,
) -> dict[str, Mean]:
    """How far values are from those with the memory of acting: the paper's Delta Q,

        |q(h'[t]) - q(h[t])| / |max over a and t of q(h'[t])|

    in the first and in the last trained row, in the mean over windows; q is of today's
    parameters in both. h' is the memory that learning has in that row, h the one that
    acting had. Without a burn-in a stored start is h itself, in the first row. A window
    whose largest value is 0 has no such share, and does not count.

    Args:
      apply: (memory, step) -> values
      values: with h', in the trained rows.
      acted: h before each of those rows, leaves [L, K, ...].
      steps: [L, K]
    """
    largest = jnp.abs(jnp.max(values, axis=(0, 2)))
    found = {}
    for name, row in (("first", 0), ("last", -1)):
        memory, step = jax.tree.map(lambda x, row=row: x[row], (acted, steps))
        as_acted = apply(memory, step)
        same = values[row] == as_acted  # impossible actions too
        difference = jnp.where(same, 0.0, values[row] - as_acted)
        share = jnp.linalg.norm(difference, axis=-1) / largest
        counts = jnp.isfinite(largest) & (largest > 0.0)
        total = jnp.sum(jnp.where(counts, share, 0.0))
        found[f"staleness_{name}"] = Mean(total, jnp.sum(counts, dtype=jnp.float32))
    return found
